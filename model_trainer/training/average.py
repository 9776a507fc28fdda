"""The exponential moving average of the weights, which is validated and saved in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

__all__ = ["WeightAverage"]


class WeightAverage:
    """Averages of variables, on every device.

    After n steps an average keeps `min(decay, (1 + n) / (10 + n))` of itself, so that the weights with which training
    began are soon forgotten; as `tf.train.ExponentialMovingAverage` with `num_updates`.

    Args:
        weights: of the network; their averages begin as what they are.
        statistics: what no gradient changes, such as moving averages of batch normalisation; averaged like weights,
            but kept apart, because older versions did not average them.
        decay: above 0, below 1.

    Source: https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    """

    def __init__(
        self,
        weights: Sequence[keras.Variable],
        statistics: Sequence[keras.Variable],
        decay: float,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.averaged = [*weights, *statistics]
        self._num_weights = len(weights)
        self._decay = decay
        self._strategy = strategy
        with strategy.scope():
            self.variables = [
                keras.Variable(each.numpy(), trainable=False, dtype=each.dtype, name=f"average_{each.name}")
                for each in self.averaged
            ]

    def is_of_statistics(self, number: int) -> bool:
        """Whether `variables[number]` is an average of statistics."""
        return number >= self._num_weights

    def update(self, step: tf.Tensor) -> None:
        """Inside the step, outside its replicas: moves the averages towards the weights.

        Args:
            step: int64 `()`, how many steps of the run were before.
        """
        count = tf.cast(step, tf.float32)
        kept = tf.minimum(self._decay, (1.0 + count) / (10.0 + count))

        def move(average: tf.Variable, weight: tf.Tensor, kept: tf.Tensor) -> None:
            average.assign_sub(tf.cast(1.0 - kept, average.dtype) * (average - weight))

        for average, weight in zip(self.variables, self.averaged, strict=True):
            self._strategy.extended.update(average.value, move, args=(weight.value, kept), group=False)

    def adopt_statistics(self) -> None:
        """Inside `in_place_of_weights`: the network's statistics become the averages', as they are."""
        for average, variable in zip(
            self.variables[self._num_weights :], self.averaged[self._num_weights :], strict=True
        ):
            average.assign(np.array(variable))

    @contextlib.contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Inside the block the network has the averages for weights; afterwards its own again, to the bit."""
        own = [np.array(weight) for weight in self.averaged]
        self.assign()
        try:
            yield
        finally:
            for weight, value in zip(self.averaged, own, strict=True):
                weight.assign(value)

    def assign(self) -> None:
        """Gives the network the averages for weights."""
        for average, weight in zip(self.variables, self.averaged, strict=True):
            weight.assign(np.array(average))
