"""Evaluation: metrics of a trained model on labeled images."""
