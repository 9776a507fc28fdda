"""Spec and head to a `keras.Model`, and the model's file."""
