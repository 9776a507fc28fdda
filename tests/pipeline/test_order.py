from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from model_trainer.pipeline.order import epoch_seeds, example_seed, shuffled_index


def orders(num_examples: int, epochs: int, seed: int = 0) -> np.ndarray:
    """`(epochs, num_examples)`: each epoch's order."""
    positions = tf.range(num_examples, dtype=tf.int64)
    return np.stack([shuffled_index(positions, tf.constant(row), num_examples) for row in epoch_seeds(seed, epochs)])


@pytest.mark.parametrize("num_examples", [1, 2, 3, 10, 257, 5000])
def test_an_epoch_has_each_example_once(num_examples: int) -> None:
    for order in orders(num_examples, epochs=3):
        assert sorted(order) == list(range(num_examples))


@pytest.mark.long
def test_epochs_and_seeds_have_different_orders(drawn: np.ndarray) -> None:
    # With the plain epoch number as seed TensorFlow gives only 256 of them.
    assert len({tuple(order) for order in drawn}) == 600
    assert not np.array_equal(orders(64, 1, seed=0), orders(64, 1, seed=1))


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return orders(64, epochs=600)


@pytest.mark.long
def test_every_example_is_at_every_position_equally_often(drawn: np.ndarray) -> None:
    worst = min(stats.chisquare(np.bincount(drawn[:, position], minlength=64)).pvalue for position in range(64))
    assert worst > 1e-4  # the smallest of 64 fair p-values is near 0.016


@pytest.mark.long
def test_neighbors_are_independent(drawn: np.ndarray) -> None:
    steps = (drawn[:, 1:] - drawn[:, :-1]) % 64
    worst = min(stats.chisquare(np.bincount(steps[:, position], minlength=64)[1:]).pvalue for position in range(63))
    assert worst > 1e-4


def test_each_example_of_each_epoch_has_its_own_seed() -> None:
    seeds = {
        tuple(example_seed(seed, tf.constant(epoch), tf.constant(position)).numpy())
        for seed in range(2)
        for epoch in range(5)
        for position in range(50)
    }
    assert len(seeds) == 2 * 5 * 50
