"""Checkpoints: what a training is made of at the end of a step, on the disk and back."""
