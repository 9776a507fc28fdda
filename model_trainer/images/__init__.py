"""Decodes and resizes images."""
