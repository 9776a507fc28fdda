"""Batch normalization in training: TensorFlow's fused kernel, and moving averages that the train step updates.

Keras' own layer computes in ten float32 operations, and each device updates its own moving averages. Here the layers
only record the moments of their batch; the train step averages them over all devices and updates the moving averages
on all of them, after it has checked that its gradients are finite.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # it has no public name

__all__ = ["FusedBatchNormalization", "Moments", "MovingAverages", "auto_momentum", "recorded_moments"]


AVERAGED_IMAGES = 512  # images that the moving averages cover with momentum "auto"


class Moments(NamedTuple):
    """Mean and variance of each channel in a batch, float32 `(channels,)`; the variance is the population variance."""

    mean: tf.Tensor
    variance: tf.Tensor


@final
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Computes the same as Keras' layer, with a fused kernel if there is one for its input.

    In training it passes its moments to `recorded_moments`, and does not update the moving averages.

    Source: https://www.tensorflow.org/api_docs/python/tf/raw_ops/FusedBatchNormV3
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        is_training = bool(training) and self.trainable
        if mask is not None or not _has_kernel(self, inputs, is_training):
            return self._without_kernel(inputs, is_training, mask)
        gamma = tf.ones_like(self.moving_variance) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        beta = tf.zeros_like(self.moving_mean) if self.beta is None else tf.convert_to_tensor(self.beta)
        images = _as_images(inputs)
        # The kernel takes moving averages in inference only, and must get empty ones in training.
        averages = (
            [] if is_training else [tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)]
        )
        mean, variance = averages or [tf.constant([], tf.float32)] * 2
        normalized = tf.raw_ops.FusedBatchNormV3(
            x=images, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=self.epsilon,
            is_training=is_training,
        )  # fmt: skip
        if is_training:
            count = tf.cast(tf.size(images, tf.int64) // tf.size(gamma, tf.int64), tf.float32)
            # Bessel's correction: the kernel returns the sample variance, Keras stores the population's.
            _record(self, Moments(normalized.batch_mean, normalized.batch_variance * ((count - 1.0) / count)))
        return tf.reshape(normalized.y, tf.shape(inputs)) if images is not inputs else normalized.y

    def _without_kernel(self, inputs: tf.Tensor, is_training: bool, mask: tf.Tensor | None) -> tf.Tensor:
        """Computes with the same operations as Keras, in float32 or wider; over all devices if synchronized."""
        wide = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = self.moving_mean, self.moving_variance
        if is_training:
            if _num_devices(self) > 1:
                mean, variance = _moments_of_all(wide, self._reduction_axes, mask)
            else:
                mean, variance = self._moments(wide, mask)
            _record(self, Moments(tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)))
        outputs = keras.ops.batch_normalization(
            wide, mean=mean, variance=variance, axis=self.axis, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )
        return tf.cast(outputs, self.compute_dtype)


def _has_kernel(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, is_training: bool) -> bool:
    """Whether the fused kernel applies: channels last, a single device, and a supported dtype."""
    rank = inputs.shape.rank
    if rank is None or rank < 2 or layer.axis not in (-1, rank - 1):
        return False
    if inputs.dtype not in (tf.float32, tf.bfloat16, tf.float16):
        return False
    if is_training:
        return _num_devices(layer) == 1
    # On GPUs the kernel has no deterministic gradient in inference mode, and raises an error.
    return not (is_op_determinism_enabled() and tf.config.list_logical_devices("GPU"))


def _num_devices(layer: keras.layers.BatchNormalization) -> int:
    """The number of devices that the layer normalizes over."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if layer.synchronized and context is not None else 1


def _moments_of_all(inputs: tf.Tensor, axes: list[int], mask: tf.Tensor | None) -> Moments:
    """Moments over all devices. Keras' mean of squares minus the square of the mean would lose precision.

    Args:
        mask: as in Keras, True where `inputs` count; its shape is that of `inputs` without the last axis.
    """

    def masked(values: tf.Tensor) -> tf.Tensor:
        return values if used is None else tf.where(used, values, tf.zeros_like(values))

    used = None if mask is None else tf.broadcast_to(tf.cast(tf.expand_dims(mask, -1), tf.bool), tf.shape(inputs))
    sums = tf.reduce_sum(masked(inputs), axes)
    if used is None:
        counts = tf.cast(tf.size(inputs, tf.int64) // tf.size(sums, tf.int64), inputs.dtype)[tf.newaxis]
    else:
        counts = tf.reduce_sum(tf.cast(used, inputs.dtype), axes)
    totals = _sum_of_all(tf.concat([sums, counts], 0))
    mean, counts = totals[: tf.size(sums)], totals[tf.size(sums) :]
    if used is not None:
        counts += keras.config.epsilon()  # as Keras does, in case all is masked
    mean /= counts
    shape = [1 if axis in axes else -1 for axis in range(inputs.shape.rank)]
    distances = tf.reduce_sum(tf.square(masked(inputs - tf.reshape(mean, shape))), axes)
    return Moments(mean, _sum_of_all(distances) / counts)


def _sum_of_all(values: tf.Tensor, context: tf.distribute.ReplicaContext | None = None) -> tf.Tensor:
    """The sum over all devices, whose gradient is the sum of all their gradients.

    TensorFlow's `all_reduce` has that gradient too, but between devices of the CPU each call walks back through all of
    the graph to find variables: tracing a step of MobileNetV2 took 154 s on two of them, instead of 16 s.
    """
    # The gradient may be asked for elsewhere, where another strategy is current.
    context = context or tf.distribute.get_replica_context()
    # The walk stops at `stop_gradient`.
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(values))

    @tf.custom_gradient
    def with_gradient(values: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        return tf.identity(total), lambda gradient: (_sum_of_all(gradient, context), None)

    return with_gradient(values, total)


def _as_images(inputs: tf.Tensor) -> tf.Tensor:
    """Reshapes to `(batch, height, width, channels)`; the kernel accepts no other rank."""
    if inputs.shape.rank == 4:
        return inputs
    return tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])


def auto_momentum(batch_size: int, steps_per_epoch: int) -> float:
    """Returns the momentum of moving averages over about 500 images, but at most half an epoch and at least 3 batches.

    A moving average with momentum m has the variance of a mean over (1 + m) / (1 - m) batches. Averages over more
    batches lag behind the weights: after 100 steps of MobileNetV2 with Adam(0.001) the validation loss was too high by
    a factor of 1.2 with 0.9, 1.6 with 0.95 and 6 with 0.99 (docs/decisions/0018-batch-normalization.md).

    Args:
        batch_size: images in a batch, over all devices.
        steps_per_epoch: batches in an epoch.

    Example:
        >>> round(auto_momentum(batch_size=32, steps_per_epoch=1000), 3)
        0.882
    """
    batches = max(3.0, min(AVERAGED_IMAGES / batch_size, steps_per_epoch / 2))
    return (batches - 1) / (batches + 1)


_PASS = threading.local()  # each replica has its own thread


@contextlib.contextmanager
def recorded_moments() -> Iterator[dict[str, Moments]]:
    """Records the moments of a forward pass in training mode.

    Yields:
        A dictionary that contains, after the block, the moments by layer name. For a layer that was called several
        times they are the mean over its calls.
    """
    moments: dict[str, Moments] = {}
    calls = _PASS.calls = {}
    try:
        yield moments
        moments |= {
            name: Moments(*(tf.add_n(values) / len(values) for values in zip(*each, strict=True)))
            for name, each in calls.items()
        }
    finally:
        del _PASS.calls


def _record(layer: keras.Layer, moments: Moments) -> None:
    """Records moments; outside `recorded_moments`, such as while a network is built, they are discarded."""
    calls = getattr(_PASS, "calls", None)
    if calls is not None:
        calls.setdefault(layer.name, []).append(Moments(*map(tf.stop_gradient, moments)))


class MovingAverages:
    """The moving means and variances of a network's batch normalization, on every device.

    Args:
        layers: the batch normalization layers of the network.
        momentum: momentum of the moving averages, with bias correction; None takes that of each layer, without bias
            correction, as in Keras.

    Attributes:
        fractions: float32 `(len(layers),)`, the fraction of each moving average that comes from batches: 0 for initial
            averages, then 1 - momentum**n after n steps, as in Adam's bias correction; 1 for averages that were loaded
            with weights.
    """

    def __init__(self, layers: Sequence[FusedBatchNormalization], momentum: float | None) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._momentum = momentum
        fractions = [0.0 if momentum is not None and _is_initial(layer) else 1.0 for layer in layers]
        self.fractions = keras.Variable(fractions, trainable=False, dtype="float32", name="batch_norm_fractions")

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of all moving means and variances."""
        return [each for layer in self._layers.values() for each in (layer.moving_mean, layer.moving_variance)]

    def values(self) -> list[np.ndarray]:
        """Returns the values of `variables`, for `assign`."""
        return [np.array(variable) for variable in self.variables]

    def assign(self, values: Sequence[np.ndarray]) -> None:
        """Restores what `values` returned."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def refresh(self, sums: Mapping[str, Moments], count: int) -> None:
        """Sets the averages to the mean of the moments of `count` batches and the current averages, equally weighted.

        Args:
            sums: the sums of the batches' moments, by layer.
            count: number of batches.
        """
        for name, summed in sums.items():
            layer = self._layers[name]
            for average, total in ((layer.moving_mean, summed.mean), (layer.moving_variance, summed.variance)):
                average.assign((average + total) / (count + 1))

    @property
    def any_trainable(self) -> bool:
        """Whether any of the layers is trainable."""
        return any(layer.trainable for layer in self._layers.values())

    def update(self, moments: Mapping[str, Moments], strategy: tf.distribute.Strategy, weight: float = 1.0) -> None:
        """Moves the averages towards `moments`; called in a train step, in cross-replica context.

        Args:
            moments: the moments of the batch by layer.
            strategy: the distribution strategy.
            weight: weight of the batch, such as 0.5 for a last batch of half as many images. Ignored if each layer has
                its own momentum, as in Keras.
        """
        fractions = tf.unstack(tf.convert_to_tensor(self.fractions))
        for number, (name, layer) in enumerate(self._layers.items()):
            if name not in moments:
                continue  # it is frozen
            momentum = layer.momentum if self._momentum is None else self._momentum**weight
            # Bias correction: the old average has the weight momentum * fraction, the batch 1 - momentum.
            fraction = momentum * fractions[number] + (1.0 - momentum)
            batch_weight = (1.0 - momentum) / fraction
            fractions[number] = fraction
            for average, value in (
                (layer.moving_mean, moments[name].mean),
                (layer.moving_variance, moments[name].variance),
            ):
                strategy.extended.update(average.value, _move, args=(value, batch_weight), group=False)
        self.fractions.assign(tf.stack(fractions))


def _is_initial(layer: keras.layers.BatchNormalization) -> bool:
    mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
    return bool((mean == 0).all() and (variance == 1).all())


def _move(average: Any, value: tf.Tensor, weight: tf.Tensor) -> None:
    average.assign(average * (1.0 - weight) + value * weight)  # the first batch has weight 1: no initial value is left
