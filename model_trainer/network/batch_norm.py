"""Batch normalisation while a network trains: TensorFlow's fused kernel, and moving averages that the step updates.

Keras' own layer computes in ten operations of float32, and each device changes moving averages of its own. Here the
layers only hand over the moments of their batch; the step takes the mean over all devices and updates the averages of
all of them, once it knows that its gradients are good.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # no public name leads to it

__all__ = ["FusedBatchNormalization", "Moments", "MovingAverages", "auto_momentum", "recorded_moments"]


AVERAGED_IMAGES = 512  # by "auto" momentum


class Moments(NamedTuple):
    """Mean and variance of each channel in one batch, float32 `(channels,)`; the variance is the population's."""

    mean: tf.Tensor
    variance: tf.Tensor


@final
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Computes what Keras' layer does, by one kernel where there is one for its input.

    In training it hands its moments to `recorded_moments`, and leaves the moving averages as they are.

    Source: https://www.tensorflow.org/api_docs/python/tf/raw_ops/FusedBatchNormV3
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        is_training = bool(training) and self.trainable
        if mask is not None or not _has_kernel(self, inputs, is_training):
            return self._by_operations(inputs, is_training, mask)
        gamma = tf.ones_like(self.moving_variance) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        beta = tf.zeros_like(self.moving_mean) if self.beta is None else tf.convert_to_tensor(self.beta)
        images = _as_images(inputs)
        # The kernel takes its own averages in inference only, and must be given none in training.
        own = (
            [] if is_training else [tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)]
        )
        mean, variance = own or [tf.constant([], tf.float32)] * 2
        normalized = tf.raw_ops.FusedBatchNormV3(
            x=images, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=self.epsilon,
            is_training=is_training,
        )  # fmt: skip
        if is_training:
            count = tf.cast(tf.size(images, tf.int64) // tf.size(gamma, tf.int64), tf.float32)
            # Bessel's correction: the kernel returns the sample variance, Keras stores the population's.
            _record(self, Moments(normalized.batch_mean, normalized.batch_variance * ((count - 1.0) / count)))
        return tf.reshape(normalized.y, tf.shape(inputs)) if images is not inputs else normalized.y

    def _by_operations(self, inputs: tf.Tensor, is_training: bool, mask: tf.Tensor | None) -> tf.Tensor:
        """As Keras does it, in float32 or what is wider; also over all devices, where it is synchronized."""
        wide = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = self.moving_mean, self.moving_variance
        if is_training:
            if mask is None and _num_devices(self) > 1:
                mean, variance = _moments_of_all(wide, self._reduction_axes)
            else:
                mean, variance = self._moments(wide, mask)
            _record(self, Moments(tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)))
        outputs = keras.ops.batch_normalization(
            wide, mean=mean, variance=variance, axis=self.axis, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )
        return tf.cast(outputs, self.compute_dtype)


def _has_kernel(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, is_training: bool) -> bool:
    """Whether the fused kernel computes exactly this: channels last, of one device alone, in a dtype that it knows."""
    rank = inputs.shape.rank
    if rank is None or rank < 2 or layer.axis not in (-1, rank - 1):
        return False
    if inputs.dtype not in (tf.float32, tf.bfloat16, tf.float16):
        return False
    if is_training:
        return _num_devices(layer) == 1
    # On GPUs the kernel has no deterministic gradient in inference mode, and refuses.
    return not (is_op_determinism_enabled() and tf.config.list_logical_devices("GPU"))


def _num_devices(layer: keras.layers.BatchNormalization) -> int:
    """How many devices the layer normalises over."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if layer.synchronized and context is not None else 1


def _moments_of_all(inputs: tf.Tensor, axes: list[int]) -> Moments:
    """Over all devices. Keras takes the mean of squares less the square of the mean, which loses digits."""

    def add_up(values: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    sums = tf.reduce_sum(inputs, axes)
    count = tf.cast(tf.size(inputs, tf.int64) // tf.size(sums, tf.int64), inputs.dtype)
    of_all = add_up(tf.concat([sums, [count]], 0))
    mean, count = of_all[:-1] / of_all[-1], of_all[-1]
    shape = [1 if axis in axes else -1 for axis in range(inputs.shape.rank)]
    distances = tf.reduce_sum(tf.square(inputs - tf.reshape(mean, shape)), axes)
    return Moments(mean, add_up(distances) / count)


def _as_images(inputs: tf.Tensor) -> tf.Tensor:
    """As `(batch, height, width, channels)`; the kernel takes no other rank."""
    if inputs.shape.rank == 4:
        return inputs
    return tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])


def auto_momentum(batch_size: int, steps_per_epoch: int) -> float:
    """The momentum with which an average weighs as much as some 500 images: at most half an epoch, at least 3 batches.

    An average with momentum m varies as much as the mean of (1 + m) / (1 - m) batches. More of them would follow the
    weights too late: after 100 steps of MobileNetV2 with Adam(0.001) the loss of a validation was 1.2 times too high
    with 0.9, 1.6 times with 0.95 and 6 times with 0.99 (docs/decisions/0018-batch-normalisation.md).
    """
    batches = max(3.0, min(AVERAGED_IMAGES / batch_size, steps_per_epoch / 2))
    return (batches - 1) / (batches + 1)


_PASS = threading.local()  # each replica has a thread of its own


@contextlib.contextmanager
def recorded_moments() -> Iterator[dict[str, Moments]]:
    """What this gives holds, after the block, the moments of the training pass in it, by the names of the layers.

    Where a layer was called several times, they are the mean of its calls.
    """
    moments: dict[str, Moments] = {}
    calls = _PASS.calls = {}
    try:
        yield moments
        moments |= {
            name: Moments(*(tf.add_n(of) / len(of) for of in zip(*each, strict=True))) for name, each in calls.items()
        }
    finally:
        del _PASS.calls


def _record(layer: keras.Layer, moments: Moments) -> None:
    """Notes moments; where nobody asks for them, such as while a network is built, they are let go."""
    calls = getattr(_PASS, "calls", None)
    if calls is not None:
        calls.setdefault(layer.name, []).append(Moments(*map(tf.stop_gradient, moments)))


class MovingAverages:
    """The moving means and variances of a network's batch normalisation, on every device.

    Args:
        layers: all that record; each has its own averages.
        momentum: what stays of an average in each step; None takes each layer's own, and corrects nothing.

    Attributes:
        fractions: float32 `(len(layers),)`, the part of each average that comes from batches: 0 of those that are as
            Keras made them, then 1 - momentum**n after n steps, as in the correction of Adam's moments; 1 of averages
            that came with weights.
    """

    def __init__(self, layers: Sequence[FusedBatchNormalization], momentum: float | None) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._momentum = momentum
        fractions = [0.0 if momentum is not None and _is_fresh(layer) else 1.0 for layer in layers]
        self.fractions = keras.Variable(fractions, trainable=False, dtype="float32", name="batch_norm_fractions")

    @property
    def variables(self) -> list[keras.Variable]:
        """The means and variances."""
        return [each for layer in self._layers.values() for each in (layer.moving_mean, layer.moving_variance)]

    def values(self) -> list[np.ndarray]:
        """Of `variables`, for `assign`."""
        return [np.array(variable) for variable in self.variables]

    def assign(self, values: Sequence[np.ndarray]) -> None:
        """Puts back what `values` gave."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def refresh(self, sums: Mapping[str, Moments], count: int) -> None:
        """Takes the mean of the moments of `count` batches and of the averages so far, each with the same weight.

        Args:
            sums: of the batches' moments, by layer.
        """
        for name, of_passes in sums.items():
            layer = self._layers[name]
            for average, total in ((layer.moving_mean, of_passes.mean), (layer.moving_variance, of_passes.variance)):
                average.assign((average + total) / (count + 1))

    @property
    def any_trainable(self) -> bool:
        """Whether any is of a layer that trains."""
        return any(layer.trainable for layer in self._layers.values())

    def update(self, moments: Mapping[str, Moments], strategy: tf.distribute.Strategy, weight: float = 1.0) -> None:
        """Inside a step, outside its replicas: moves the averages of the layers in `moments` towards them.

        Args:
            weight: of the batch; a last one of half as many images has 0.5, and none where each layer has its own
                momentum, as in Keras.
        """
        fractions = tf.unstack(tf.convert_to_tensor(self.fractions))
        for number, (name, layer) in enumerate(self._layers.items()):
            if name not in moments:
                continue  # it is frozen
            momentum = layer.momentum if self._momentum is None else self._momentum**weight
            # Of a sum of momentum * fraction (the old) and 1 - momentum (the new), divided by itself.
            fraction = momentum * fractions[number] + (1.0 - momentum)
            moved = (1.0 - momentum) / fraction
            fractions[number] = fraction
            for average, value in (
                (layer.moving_mean, moments[name].mean),
                (layer.moving_variance, moments[name].variance),
            ):
                strategy.extended.update(average.value, _move, args=(value, moved), group=False)
        self.fractions.assign(tf.stack(fractions))


def _is_fresh(layer: keras.layers.BatchNormalization) -> bool:
    mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
    return bool((mean == 0).all() and (variance == 1).all())


def _move(average: Any, value: tf.Tensor, moved: tf.Tensor) -> None:
    average.assign(average * (1.0 - moved) + value * moved)  # with moved = 1 nothing is left of the beginning
