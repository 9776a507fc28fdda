"""A `tf.data` map that tries a fast function, and an exact one where the fast one raises.

A graph has no `try`. Here the fast function's errors drop its elements; the numbers of those that are left tell where
one is missing, and the exact function fills the place. Costs nothing that can be measured for elements without error
(docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["map_with_fallback"]

MapFunction = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def map_with_fallback(start: int, stop: int, fast: MapFunction, exact: MapFunction) -> tf.data.Dataset:
    """The elements `fast(n)` for n from `start` to `stop - 1`, in order, each `exact(n)` where `fast` raises.

    Args:
        fast: int64 `()` to a tuple of tensors; may raise in the graph.
        exact: the same tensors for the same number; must not raise.
    """
    options: dict[str, Any] = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    tried = tf.data.Dataset.range(start, stop).map(lambda n: (n, fast(n)), **options).ignore_errors(log_warning=False)
    spec = tried.element_spec[1]
    nothing = tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), spec)
    # One more at the end, so that a gap there is seen too.
    ended = tried.concatenate(tf.data.Dataset.from_tensors((tf.constant(stop, tf.int64), nothing)))

    def count(expected: tf.Tensor, element: Any) -> tuple[tf.Tensor, Any]:
        return element[0] + 1, (expected, *element)

    def with_missing(expected: tf.Tensor, n: tf.Tensor, element: Any) -> tf.data.Dataset:
        # Without a function inside: each would have to be set up again for every element, which takes 0.3 ms.
        numbers = tf.data.Dataset.range(expected, n + 1)
        return tf.data.Dataset.zip(numbers, tf.data.Dataset.from_tensors((n, element)).repeat())

    def fill(number: tf.Tensor, found: Any) -> Any:
        n, element = found
        return tf.cond(number == n, lambda: element, lambda: exact(number))

    counted = ended.scan(tf.constant(start, tf.int64), count)
    return counted.flat_map(with_missing).take(stop - start).map(fill, **options)
