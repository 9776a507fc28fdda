"""Clipping of the gradients of the whole batch, whatever the number of devices."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from model_trainer.config import Call, Live
from model_trainer.training.optimizers import Optimizer

__all__ = ["Clip", "clip_gradients"]


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


def clip_gradients(
    gradients: list[tf.Tensor | None], clip: Clip, *, scale: float | tf.Tensor, strategy: tf.distribute.Strategy
) -> list[tf.Tensor | None]:
    """Clips the sum over replicas of `gradients`, and gives each replica its equal share of the result.

    Keras' optimizers clip before they add up over replicas, which clips each device's part instead.

    Args:
        gradients: of this replica, multiplied with `scale`.
        scale: the loss scale of mixed_float16, otherwise 1.
    """
    if clip.norm is None and clip.value is None:
        return gradients
    known = [gradient for gradient in gradients if gradient is not None]
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        known = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, known)
    if clip.value is not None:
        known = [tf.clip_by_value(gradient, -clip.value * scale, clip.value * scale) for gradient in known]
    if clip.norm is not None:
        known, _ = tf.clip_by_global_norm(known, clip.norm * scale)
    shares = iter([gradient / replicas for gradient in known])
    return [None if gradient is None else next(shares) for gradient in gradients]
