"""Turns examples into batches: shuffling, decoding, resizing, augmentation, sharding."""
