"""Engines: what computes a trained model, behind `predict`, `evaluate` and `serve` alike."""
