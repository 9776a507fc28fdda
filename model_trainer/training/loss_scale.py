"""The loss scale of mixed_float16, kept in Keras' `LossScaleOptimizer` and lowered by what all devices saw.

Keras looks at each device's gradients before they are added up, and at those of the first device only: an overflow
elsewhere would write NaN into all weights.
"""

from __future__ import annotations

import keras
import tensorflow as tf

__all__ = ["lower_scale", "scale_of"]

MIN_SCALE = 2.0**-10  # what overflows at this one is no number that another scale could save


def scale_of(optimizer: keras.optimizers.Optimizer) -> tf.Tensor | None:
    """float32 `()`: what the loss is multiplied with now; None where it is not scaled."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return None
    return tf.convert_to_tensor(optimizer.dynamic_scale)


def lower_scale(optimizer: keras.optimizers.LossScaleOptimizer, overflowed: tf.Tensor) -> None:
    """Inside a step, outside its replicas: halves the scale where `overflowed`, a bool `()`, says so.

    That a loss is no number is not the scale's doing: it would get lower with each such image, and never recover.
    """

    def halve() -> None:
        optimizer.step_counter.assign(0)  # until the scale may grow again
        optimizer.dynamic_scale.assign(tf.maximum(tf.convert_to_tensor(optimizer.dynamic_scale) * 0.5, MIN_SCALE))

    tf.cond(overflowed, halve, lambda: None)
