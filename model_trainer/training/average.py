"""The exponential moving average (EMA) of the weights, which is validated and saved in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving averages of variables, on every device.

    After n steps the decay is `min(decay, (1 + n) / (10 + n))`, so that the initial weights are soon forgotten, as in
    `tf.train.ExponentialMovingAverage` with `num_updates`.

    Args:
        weights: variables of the network; their values initialize the averages.
        statistics: variables without a gradient, such as the moving mean and variance of batch normalization; averaged
            like weights, but listed separately, because older versions did not average them.
        decay: the maximum decay, above 0 and below 1.
        strategy: of the devices that hold the variables.

    Attributes:
        averaged: the variables of the network that are averaged, the weights first.
        variables: their averages, in the same order.

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

    def averages_statistics(self, index: int) -> bool:
        """Whether `variables[index]` is an average of statistics."""
        return index >= self._num_weights

    def update(self, step: tf.Tensor) -> None:
        """Updates the averages; called in the training step, outside its replicas (cross-replica context).

        Args:
            step: int64 `()`, number of steps of the run before this one.
        """
        count = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + count) / (10.0 + count))

        def move(average: tf.Variable, weight: tf.Tensor, decay: tf.Tensor) -> None:
            average.assign_sub(tf.cast(1.0 - decay, average.dtype) * (average - weight))

        for average, weight in zip(self.variables, self.averaged, strict=True):
            self._strategy.extended.update(average.value, move, args=(weight.value, decay), group=False)

    def adopt_statistics(self) -> None:
        """Copies the network's statistics into their averages; called inside `in_place_of_weights`."""
        for average, variable in zip(
            self.variables[self._num_weights :], self.averaged[self._num_weights :], strict=True
        ):
            average.assign(np.array(variable))

    @contextlib.contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Replaces the network's weights with their averages in the `with` block; afterwards restores them exactly."""
        original = [np.array(weight) for weight in self.averaged]
        self.assign()
        try:
            yield
        finally:
            for weight, value in zip(self.averaged, original, strict=True):
                weight.assign(value)

    def assign(self) -> None:
        """Assigns the averages to the network's weights."""
        for average, weight in zip(self.variables, self.averaged, strict=True):
            weight.assign(np.array(average))
