"""Inference: predictions of a trained model for image files."""
