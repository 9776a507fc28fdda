"""Predictions to metrics."""
