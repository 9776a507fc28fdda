"""Inference: predictions for image files, and an HTTP endpoint."""
