"""Checkpoints: the state of a training between two steps, saved to disk and restored."""
