"""Stateless shuffling: the example at a position is a function of (seed, epoch, position).

TensorFlow's `RandomIndexShuffle` computes the i-th index of a permutation without storing it. With few indices it uses
only the low bits of each seed word: seeded with the plain epoch number it gave 256 different orders in 2,000 epochs.
Therefore the words of each epoch are hashed first, which gave 2,000 (docs/decisions/0003).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

__all__ = ["epoch_seeds", "example_seed", "shuffled_index"]

ROUNDS = 16  # of its block cipher; the default of 4 is the minimum that it allows


def epoch_seeds(seed: int, epochs: int) -> np.ndarray:
    """uint32 `(epochs, 3)`: hashed seed words for `shuffled_index`, one row per epoch."""
    return np.stack([np.random.SeedSequence([seed, epoch]).generate_state(3) for epoch in range(epochs)])


def shuffled_index(position: tf.Tensor, seeds: tf.Tensor, num_examples: int | tf.Tensor) -> tf.Tensor:
    """int64 `()`: the index of the example at `position` of an epoch, a permutation of all positions.

    Args:
        position: int64 `()`, 0 to num_examples - 1.
        seeds: uint32 `(3,)`, a row of `epoch_seeds`.
        num_examples: examples in an epoch.
    """
    last = tf.cast(num_examples - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=position, seed=seeds, max_index=last, rounds=ROUNDS)


def example_seed(seed: int, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """int32 `(2,)`: the seed for the random augmentation of the example at `position` of `epoch`."""
    fold_in = tf.random.experimental.stateless_fold_in
    epoch_seed = fold_in(tf.constant([seed, 0x6D74], tf.int32), tf.cast(epoch, tf.int32))
    return fold_in(epoch_seed, tf.cast(position, tf.int32))
