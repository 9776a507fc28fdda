"""Inference: predictions of a model file for images."""
