"""Evaluation: metrics of a trained model on labelled images."""
