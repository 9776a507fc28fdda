"""Saving models, and loading model files of any origin."""
