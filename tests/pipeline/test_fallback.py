from __future__ import annotations

import pytest
import tensorflow as tf

from model_trainer.pipeline.fallback import map_with_fallback


def elements(start: int, stop: int, raising: set[int]) -> list[tuple[int, bytes]]:
    """`(n, "fast" or "exact")` for each number, after the function that made it."""
    bad = tf.constant(sorted(raising) or [-1], tf.int64)

    def fast(n: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(n != bad), ["bad"])]):
            return tf.identity(n), tf.constant("fast")

    dataset = map_with_fallback(start, stop, fast, lambda n: (n, tf.constant("exact")))
    return [(int(n), function.decode()) for n, function in dataset.as_numpy_iterator()]


@pytest.mark.parametrize(
    "raising",
    [set(), {0}, {9}, {4}, {3, 4, 5}, {0, 1, 8, 9}, set(range(10))],
    ids=["none", "first", "last", "middle", "three in a row", "both ends", "all"],
)
def test_elements_whose_fast_function_raises_are_filled_in_at_their_positions(raising: set[int]) -> None:
    assert elements(0, 10, raising) == [(n, "exact" if n in raising else "fast") for n in range(10)]


def test_a_range_may_start_above_0() -> None:
    assert elements(5, 9, {5, 7}) == [(5, "exact"), (6, "fast"), (7, "exact"), (8, "fast")]


def test_an_empty_range_has_no_elements() -> None:
    assert elements(3, 3, set()) == []


@pytest.mark.parametrize("raising", [set(), set(range(100)), {15, 16, 17, 31, 32, 33, 99}, set(range(10, 60))])
def test_long_gaps_are_filled_in(raising: set[int]) -> None:
    assert elements(7, 100, raising) == [(n, "exact" if n in raising else "fast") for n in range(7, 100)]


def test_the_first_element_does_not_wait_for_the_last_if_all_raise() -> None:
    tried: list[int] = []

    def fast(n: tf.Tensor) -> tuple[tf.Tensor]:
        noted = tf.numpy_function(lambda n: tried.append(n), [n], [])
        with tf.control_dependencies([noted, tf.debugging.Assert(n < 0, ["bad"])]):
            return (tf.identity(n),)

    first = next(iter(map_with_fallback(0, 100_000, fast, lambda n: (n,))))
    assert first[0].numpy() == 0
    assert 0 < len(tried) < 10_000
