"""A `tf.data` map that tries a fast function, and an exact one where the fast one raises.

A graph has no `try`. Here the fast function's errors drop its elements; the numbers of those that are left tell where
one is missing, and the exact function fills the place. Costs nothing that can be measured for elements without error
(docs/decisions/0004).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["map_with_fallback"]

MapFunction = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


# After so many elements comes a mark that never fails. Where all elements do, such as in a folder of WebP images,
# nothing would come through otherwise before the last one of the run had been tried.
MARK_AFTER = 16


def map_with_fallback(start: int, stop: int, fast: MapFunction, exact: MapFunction) -> tf.data.Dataset:
    """The elements `fast(n)` for n from `start` to `stop - 1`, in order, each `exact(n)` where `fast` raises.

    Args:
        fast: int64 `()` to a tuple of tensors; may raise in the graph.
        exact: the same tensors for the same number; must not raise.
    """
    options: dict[str, Any] = {"num_parallel_calls": _num_cores(), "deterministic": True}
    # AutoGraph would read the source of every function, which takes longer than building the graph.
    plain = tf.autograph.experimental.do_not_convert
    traced = tf.function(fast, autograph=False).get_concrete_function(tf.TensorSpec((), tf.int64))
    nothing = tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), traced.structured_outputs)

    @plain
    def attempt(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
        is_mark = place % (MARK_AFTER + 1) == MARK_AFTER
        n = start + place - place // (MARK_AFTER + 1)  # of a mark the element that follows it
        return n, is_mark, tf.cond(is_mark, lambda: nothing, lambda: traced(n))

    num_places = stop - start + (stop - start) // MARK_AFTER
    tried = tf.data.Dataset.range(num_places).map(attempt, **options).ignore_errors(log_warning=False)
    # One mark more at the end, so that a gap there is seen too.
    at_end = (tf.constant(stop, tf.int64), tf.constant(True), nothing)
    ended = tried.concatenate(tf.data.Dataset.from_tensors(at_end))

    @plain
    def count(expected: tf.Tensor, found: Any) -> tuple[tf.Tensor, Any]:
        n, is_mark, element = found
        after = tf.where(is_mark, n, n + 1)
        return after, (expected, after, n, element)

    @plain
    def with_missing(expected: tf.Tensor, after: tf.Tensor, n: tf.Tensor, element: Any) -> tf.data.Dataset:
        # Without a function inside: each would have to be set up again for every element, which takes 0.3 ms.
        numbers = tf.data.Dataset.range(expected, after)
        return tf.data.Dataset.zip(numbers, tf.data.Dataset.from_tensors((n, element)).repeat())

    @plain
    def fill(number: tf.Tensor, found: Any) -> Any:
        n, element = found
        # A mark's n is never among its numbers.
        return tf.cond(number == n, lambda: element, lambda: exact(number))

    counted = ended.scan(tf.constant(start, tf.int64), count)
    return counted.flat_map(with_missing).map(fill, **options)


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
