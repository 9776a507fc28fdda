"""Loss scaling for mixed_float16: stored in Keras' `LossScaleOptimizer`, lowered after an overflow on any device.

Keras checks the gradients before they are summed over devices, and only those of the first device: an overflow on
another device would turn all weights into NaN.
"""

from __future__ import annotations

import keras
import tensorflow as tf

__all__ = ["lower_scale", "scale_of"]

MIN_SCALE = 2.0**-10  # gradients that overflow at this scale are not finite at any scale


def scale_of(optimizer: keras.optimizers.Optimizer) -> tf.Tensor | None:
    """Returns float32 `()`: the current loss scale; None if the loss is not scaled."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return None
    return tf.convert_to_tensor(optimizer.dynamic_scale)


def lower_scale(optimizer: keras.optimizers.LossScaleOptimizer, overflowed: tf.Tensor) -> None:
    """Halves the loss scale if `overflowed`; called in the training step, outside its replicas.

    A loss that is itself not finite must not count as an overflow: the scale would be lowered by each such image, and
    never recover.

    Args:
        overflowed: bool `()`.
    """

    def halve() -> None:
        optimizer.step_counter.assign(0)  # counts the steps until the scale may grow again
        optimizer.dynamic_scale.assign(tf.maximum(tf.convert_to_tensor(optimizer.dynamic_scale) * 0.5, MIN_SCALE))

    tf.cond(overflowed, halve, lambda: None)
