"""A `tf.data` map that tries a fast function first, and an exact one for the elements for which the fast one raises.

A graph has no `try`. Here an error of the fast function drops its element; the numbers of the remaining elements show
which ones are missing, and the exact function computes those. Elements without an error cost nothing measurable
(docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from model_trainer.cpu_cores import num_usable_cores

__all__ = ["Ahead", "map_with_fallback"]

MapFunction = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
Ahead = Callable[[tf.data.Dataset, Callable[[tf.Tensor], tf.Tensor]], tf.data.Dataset]


# A mark, which never fails, is inserted after this many elements. If all elements fail, as in a folder of WebP images,
# the dataset would otherwise yield nothing before the last element of the run had been tried.
MARK_AFTER = 16


def map_with_fallback(
    start: int, stop: int, fast: MapFunction, exact: MapFunction, ahead: Ahead | None = None
) -> tf.data.Dataset:
    """The elements `fast(n)` for n from `start` to `stop - 1`, in order, or `exact(n)` if `fast(n)` raises.

    Args:
        start, stop: the range of n.
        fast: from int64 `()` to a tuple of tensors; may raise in the graph.
        exact: the same tensors for the same n; must not raise, unless the whole dataset should.
        ahead: an optional first stage, which starts to read what `fast` will need. It takes a dataset of int64 `()` and
            a function from its elements to n, and returns a dataset with the same elements.
    """
    options: dict[str, Any] = {"num_parallel_calls": num_usable_cores(), "deterministic": True}
    # AutoGraph would parse the source of every function, which takes longer than tracing it.
    plain = tf.autograph.experimental.do_not_convert
    traced = tf.function(fast, autograph=False).get_concrete_function(tf.TensorSpec((), tf.int64))
    zeros = tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), traced.structured_outputs)

    def number_of(slot: tf.Tensor) -> tf.Tensor:
        return start + slot - slot // (MARK_AFTER + 1)  # a mark carries the number of the element that follows it

    @plain
    def attempt(slot: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
        is_mark = slot % (MARK_AFTER + 1) == MARK_AFTER
        n = number_of(slot)
        return n, is_mark, tf.cond(is_mark, lambda: zeros, lambda: traced(n))

    num_slots = stop - start + (stop - start) // MARK_AFTER
    slots = tf.data.Dataset.range(num_slots)
    if ahead is not None:
        slots = ahead(slots, number_of)
    attempted = slots.map(attempt, **options).ignore_errors(log_warning=False)
    # One more mark at the end, so that missing elements there are noticed too.
    end_mark = (tf.constant(stop, tf.int64), tf.constant(True), zeros)
    ended = attempted.concatenate(tf.data.Dataset.from_tensors(end_mark))

    @plain
    def count(expected: tf.Tensor, attempted: Any) -> tuple[tf.Tensor, Any]:
        n, is_mark, element = attempted
        after = tf.where(is_mark, n, n + 1)
        return after, (expected, after, n, element)

    @plain
    def with_missing(expected: tf.Tensor, after: tf.Tensor, n: tf.Tensor, element: Any) -> tf.data.Dataset:
        # No nested map: it would be set up again for every element, which takes 0.3 ms.
        numbers = tf.data.Dataset.range(expected, after)
        return tf.data.Dataset.zip(numbers, tf.data.Dataset.from_tensors((n, element)).repeat())

    @plain
    def fill(number: tf.Tensor, succeeded: Any) -> Any:
        n, element = succeeded
        # For a mark, n is never among the numbers.
        return tf.cond(number == n, lambda: element, lambda: exact(number))

    counted = ended.scan(tf.constant(start, tf.int64), count)
    return counted.flat_map(with_missing).map(fill, **options)
