"""Gradients of the whole batch, whatever the number of devices and parts it is computed on and in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tensorflow as tf

from model_trainer.config import Call, Live
from model_trainer.run.optimizers import Optimizer

__all__ = ["Clip", "accumulate", "all_finite", "clip_gradients"]


@dataclass(frozen=True)
class Clip:
    """Limits to gradients; None is no limit.

    Attributes:
        norm: largest norm of all gradients together.
        value: largest absolute value.
    """

    norm: float | None = None
    value: float | None = None

    @classmethod
    def of(cls, optimizer: Optimizer | Call | Live) -> Clip:
        """What the declared optimizer asks for; the user's own Keras optimizer clips by itself."""
        return cls(optimizer.clip_norm, optimizer.clip_value) if isinstance(optimizer, Optimizer) else cls()


def accumulate(compute: Callable[[int, Any], Any], rows: Any, num_parts: int) -> Any:
    """The sum of `compute(number, part)` over parts of `rows`, one part after another.

    Args:
        compute: its results are structures of tensors.
        rows: a structure of tensors with the same number of rows, known when the graph is built, and at least
            `num_parts`.
    """
    if num_parts == 1:
        return compute(0, rows)
    count = int(tf.nest.flatten(rows)[0].shape[0])
    edges = [count * number // num_parts for number in range(num_parts + 1)]
    total: Any = None
    for number, (start, stop) in enumerate(pairwise(edges)):
        # Otherwise TensorFlow would compute parts at the same time, and hold all of them in memory.
        with tf.control_dependencies([] if total is None else tf.nest.flatten(total)):
            part = _slice_rows(rows, slice(start, stop))
        found = compute(number, part)
        total = found if total is None else tf.nest.map_structure(tf.add, total, found)
    return total


def _slice_rows(rows: Any, part: slice) -> Any:
    return tf.nest.map_structure(lambda column: tf.identity(column[part]), rows)


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """bool `()`: whether no tensor holds NaN, infinity, or numbers whose squares have no sum in float32."""
    # One pass over the numbers in one operation; `is_finite` and `reduce_all` would write a mask in between.
    squares = [tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
    return tf.math.is_finite(tf.add_n(squares)) if squares else tf.constant(True)


def clip_gradients(
    gradients: list[tf.Tensor], clip: Clip, *, scale: float | tf.Tensor, strategy: tf.distribute.Strategy
) -> list[tf.Tensor]:
    """Clips the sum over replicas of `gradients`, and gives each replica its equal share of the result.

    Keras' optimizers clip before they add up over replicas, which clips each device's part instead.

    Args:
        gradients: of this replica, multiplied with `scale`.
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
