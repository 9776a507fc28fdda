"""Gradient accumulation and clipping, with the same result for any number of devices and accumulation steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tensorflow as tf

from model_trainer.run.optimizers import Optimizer
from model_trainer.user_code import Call, Live

__all__ = ["Clip", "accumulate", "all_finite", "clip_gradients"]


@dataclass(frozen=True)
class Clip:
    """Limits for gradient clipping; None is no limit.

    Attributes:
        norm: maximum global norm of the gradients.
        value: maximum absolute value of their elements.
    """

    norm: float | None = None
    value: float | None = None

    @classmethod
    def from_optimizer(cls, optimizer: Optimizer | Call | Live) -> Clip:
        """Returns the limits of a declared optimizer; the user's own Keras optimizer clips by itself."""
        return cls(optimizer.clip_norm, optimizer.clip_value) if isinstance(optimizer, Optimizer) else cls()


def accumulate(compute: Callable[[int, Any], Any], rows: Any, num_slices: int) -> Any:
    """Returns the sum of `compute(index, slice)` over slices of `rows`, computed one after another.

    Args:
        compute: returns a structure of tensors.
        rows: a structure of tensors with the same number of rows, known when the graph is built, and at least
            `num_slices`.
    """
    if num_slices == 1:
        return compute(0, rows)
    count = int(tf.nest.flatten(rows)[0].shape[0])
    edges = [count * index // num_slices for index in range(num_slices + 1)]
    total: Any = None
    for index, (start, stop) in enumerate(pairwise(edges)):
        # Without this dependency TensorFlow would compute slices in parallel, with all of them in memory.
        with tf.control_dependencies([] if total is None else tf.nest.flatten(total)):
            rows_of_slice = _slice_rows(rows, slice(start, stop))
        result = compute(index, rows_of_slice)
        total = result if total is None else tf.nest.map_structure(tf.add, total, result)
    return total


def _slice_rows(rows: Any, bounds: slice) -> Any:
    return tf.nest.map_structure(lambda column: tf.identity(column[bounds]), rows)


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns bool `()`: whether no tensor has NaN, infinity, or numbers whose squared sum overflows float32."""
    # One operation that reads the numbers once; `is_finite` and `reduce_all` would write a mask in between.
    squares = [tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
    return tf.math.is_finite(tf.add_n(squares)) if squares else tf.constant(True)


def clip_gradients(
    gradients: list[tf.Tensor], clip: Clip, *, scale: float | tf.Tensor, strategy: tf.distribute.Strategy
) -> list[tf.Tensor]:
    """Clips the sum of `gradients` over replicas, and returns an equal fraction of the result to each replica.

    Keras' optimizers clip before the sum over replicas, which clips the gradients of each device instead.

    Args:
        gradients: of this replica, multiplied by `scale`.
        scale: the loss scale of mixed_float16, otherwise 1.
    """
    if clip.norm is None and clip.value is None:
        return gradients
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    if clip.value is not None:
        gradients = [tf.clip_by_value(gradient, -clip.value * scale, clip.value * scale) for gradient in gradients]
    if clip.norm is not None:
        gradients, _ = tf.clip_by_global_norm(gradients, clip.norm * scale)
    return [gradient / replicas for gradient in gradients]
