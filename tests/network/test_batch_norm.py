"""Batch normalization of the training copy, compared with Keras' own layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import op_selector
from tensorflow.python.ops.op_selector import get_backward_walk_ops

from model_trainer import Hardware
from model_trainer.network.batch_norm import (
    FusedBatchNormalization,
    Moments,
    MovingAverages,
    auto_momentum,
    recorded_moments,
)
from model_trainer.training.devices import make_strategy

SHAPES = [(4, 5, 6, 8), (1, 1, 1, 8), (6, 8), (3, 7, 8), (2, 3, 2, 3, 8)]
# The largest difference, relative to the largest value; a half has 8 (bfloat16) or 11 bits.
ROUNDING = {"float32": 1e-5, "mixed_bfloat16": 1e-2, "mixed_float16": 1e-3}


def with_random_weights(
    layer: keras.layers.BatchNormalization, shape: tuple[int, ...]
) -> keras.layers.BatchNormalization:
    random = np.random.default_rng(0)
    layer.build(shape)
    layer.set_weights([random.uniform(0.5, 2.0, variable.shape) for variable in layer.weights])
    return layer


def forward_and_backward(
    layer: keras.Layer, inputs: tf.Tensor, training: bool, **call: Any
) -> tuple[list[np.ndarray], dict[str, Moments]]:
    """Outputs, and the gradients of a random sum of them with respect to the inputs and all weights."""
    factors = np.random.default_rng(1).normal(0, 1, inputs.shape)
    weights = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape, recorded_moments() as moments:
        tape.watch(inputs)
        outputs = layer(inputs, training=training, **call)
        total = tf.reduce_sum(tf.cast(outputs, tf.float32) * factors)
    gradients = tape.gradient(total, [inputs, *weights])
    return [np.asarray(tf.cast(each, tf.float32)) for each in (outputs, *gradients)], moments


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"axis": 1}], ids=str)
@pytest.mark.parametrize("policy", list(ROUNDING))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_gradients_and_moments_match_keras(
    shape: tuple[int, ...], policy: str, options: dict[str, Any]
) -> None:
    inputs = tf.constant(np.random.default_rng(2).normal(2, 3, shape), tf.float32)
    theirs = with_random_weights(keras.layers.BatchNormalization(dtype=policy, name="norm", **options), shape)
    ours = with_random_weights(FusedBatchNormalization(dtype=policy, name="norm", **options), shape)
    for training in (False, True):
        expected, _ = forward_and_backward(theirs, inputs, training)
        actual, moments = forward_and_backward(ours, inputs, training)
        for mine, reference in zip(actual, expected, strict=True):
            scale = max(np.abs(reference).max(), 1e-2)
            np.testing.assert_allclose(mine, reference, rtol=0, atol=scale * ROUNDING[policy])
        assert list(moments) == (["norm"] if training else [])
    before = with_random_weights(keras.layers.BatchNormalization(**options), shape).get_weights()[-2:]
    momentum = theirs.momentum
    # Keras' layer updates its moving averages with the moments that ours records.
    for average, old, moment in zip(theirs.get_weights()[-2:], before, moments["norm"], strict=True):
        np.testing.assert_allclose(average, momentum * old + (1 - momentum) * moment, rtol=1e-5, atol=1e-5)
    for average, old in zip(ours.get_weights()[-2:], before, strict=True):
        np.testing.assert_array_equal(average, old)


def test_the_recorded_variance_is_the_population_variance() -> None:
    inputs = np.random.default_rng(0).normal(0, 5, (2, 1, 2, 3)).astype(np.float32)
    layer = with_random_weights(FusedBatchNormalization(name="norm"), inputs.shape)
    _, moments = forward_and_backward(layer, tf.constant(inputs), training=True)
    np.testing.assert_allclose(moments["norm"].variance, inputs.var(axis=(0, 1, 2)), rtol=1e-5)


def test_a_frozen_layer_runs_in_inference_mode_and_records_nothing() -> None:
    inputs = tf.constant(np.random.default_rng(0).normal(2, 3, (4, 5, 5, 3)), tf.float32)
    layer = with_random_weights(FusedBatchNormalization(), inputs.shape)
    reference = np.asarray(layer(inputs, training=False))
    layer.trainable = False
    with recorded_moments() as moments:
        np.testing.assert_allclose(layer(inputs, training=True), reference, rtol=1e-6)
    assert not moments


def test_a_mask_has_the_same_effect_as_in_keras() -> None:
    inputs = tf.constant(np.random.default_rng(0).normal(2, 3, (4, 5, 3)), tf.float32)
    mask = tf.constant(np.arange(20).reshape(4, 5) % 3 > 0)
    theirs = with_random_weights(keras.layers.BatchNormalization(), inputs.shape)
    ours = with_random_weights(FusedBatchNormalization(), inputs.shape)
    expected, _ = forward_and_backward(theirs, inputs, True, mask=mask)
    actual, moments = forward_and_backward(ours, inputs, True, mask=mask)
    for mine, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-5)
    (moment,) = moments.values()
    kept = inputs.numpy()[mask.numpy()]
    np.testing.assert_allclose(moment.mean, kept.mean(axis=0), rtol=1e-4)


def test_the_moments_of_a_layer_called_twice_are_averaged() -> None:
    layer = with_random_weights(FusedBatchNormalization(name="norm"), (2, 3))
    with recorded_moments() as moments:
        layer(tf.constant([[1.0, 2.0, 3.0]] * 2), training=True)
        layer(tf.constant([[3.0, 4.0, 5.0]] * 2), training=True)
    np.testing.assert_allclose(moments["norm"].mean, [2.0, 3.0, 4.0])


def update_averages(layer: FusedBatchNormalization, momentum: float | None, batches: np.ndarray) -> MovingAverages:
    averages = MovingAverages([layer], momentum)
    for mean, variance in batches:
        moments = {layer.name: Moments(tf.constant(mean), tf.constant(variance))}
        averages.update(moments, tf.distribute.get_strategy())
    return averages


BATCHES = np.random.default_rng(3).uniform(0.1, 9.0, (5, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 5])
def test_initial_averages_are_bias_corrected_as_in_adam(count: int) -> None:
    layer = FusedBatchNormalization()
    layer.build((1, 3))
    update_averages(layer, 0.9, BATCHES[:count])
    weights = 0.1 * 0.9 ** np.arange(count)[::-1]
    expected = np.tensordot(weights / (1 - 0.9**count), BATCHES[:count], axes=1)
    np.testing.assert_allclose(np.array([layer.moving_mean, layer.moving_variance]), expected, rtol=1e-5)


def test_loaded_averages_are_updated_without_bias_correction() -> None:
    layer = with_random_weights(FusedBatchNormalization(), (1, 3))
    expected = np.array([layer.moving_mean, layer.moving_variance])
    update_averages(layer, 0.9, BATCHES)
    for batch in BATCHES:
        expected = 0.9 * expected + 0.1 * batch
    np.testing.assert_allclose(np.array([layer.moving_mean, layer.moving_variance]), expected, rtol=1e-5)


def test_a_small_last_batch_has_less_weight() -> None:
    layer = with_random_weights(FusedBatchNormalization(name="norm"), (1, 3))
    before, moments = np.array(layer.moving_mean), Moments(tf.constant(BATCHES[0, 0]), tf.constant(BATCHES[0, 1]))
    averages = MovingAverages([layer], 0.9)
    for _ in range(4):
        averages.update({"norm": moments}, tf.distribute.get_strategy(), 0.25)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * before + 0.1 * BATCHES[0, 0], rtol=1e-5)


def test_the_momentum_of_the_layer_itself_has_no_bias_correction() -> None:
    layer = FusedBatchNormalization(momentum=0.99)
    layer.build((1, 3))
    update_averages(layer, None, BATCHES[:1])
    np.testing.assert_allclose(layer.moving_mean, 0.01 * BATCHES[0, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("batch_size", "steps_per_epoch", "images"),
    [(32, 1000, 512), (8, 1000, 512), (256, 5000, 768), (32, 10, 160), (32, 1, 96)],
)
def test_auto_momentum_averages_over_about_500_images(batch_size: int, steps_per_epoch: int, images: int) -> None:
    momentum = auto_momentum(batch_size, steps_per_epoch)
    # The variance of a moving average is that of a mean over so many batches: the sum of its squared weights.
    weights = (1 - momentum) * momentum ** np.arange(10_000)
    assert batch_size / np.sum(weights**2) == pytest.approx(images, rel=1e-6)


def steps_back(num_layers: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of operations in TensorFlow's longest backward walk while it traces synchronized layers."""
    longest = 0

    def walk(*arguments: Any, **options: Any) -> list[tf.Operation]:
        nonlocal longest
        operations = get_backward_walk_ops(*arguments, **options)
        longest = max(longest, len(operations))
        return operations

    monkeypatch.setattr(op_selector, "get_backward_walk_ops", walk)
    strategy = make_strategy(Hardware(platform="cpu", devices=2))
    with strategy.scope():
        layers = [FusedBatchNormalization(synchronized=True) for _ in range(num_layers)]
        for layer in layers:
            layer.build((2, 3))

    def gradient(inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape, recorded_moments():
            tape.watch(inputs)
            outputs = inputs
            for layer in layers:
                outputs = layer(outputs, training=True)
        return tape.gradient(outputs, inputs)

    train = tf.function(lambda inputs: strategy.run(gradient, (inputs,)), autograph=False)
    train.get_concrete_function(tf.TensorSpec((2, 3)))
    return longest


def test_the_longest_backward_walk_while_tracing_does_not_grow_with_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 0 < steps_back(6, monkeypatch) == steps_back(2, monkeypatch)


def by_replica(shards: list[np.ndarray]) -> tf.Tensor:
    """The shard of this replica, whose number is known when its code is traced."""
    number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
    return tf.constant(shards[int(number)])


def derivatives(function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The outputs, and the first and second derivative of a scalar with respect to the inputs of all devices."""
    with tf.GradientTape() as second:
        second.watch(inputs)
        with tf.GradientTape() as first:
            first.watch(inputs)
            outputs = function(inputs)
            loss = tf.reduce_sum(tf.sin(outputs))
        gradient = first.gradient(loss, inputs)
        penalty = tf.reduce_sum(tf.sin(gradient))
    return outputs, gradient, second.gradient(penalty, inputs)


def normalized(inputs: tf.Tensor, mask: np.ndarray, layer: keras.layers.BatchNormalization) -> tf.Tensor:
    """Batch normalization by plain operations; Keras' own has a wrong second derivative, by a `stop_gradient`."""
    gamma, beta = (np.float64(each) for each in layer.get_weights()[:2])
    weights = np.float64(mask)[..., np.newaxis]
    mean = tf.reduce_sum(weights * inputs, (0, 1)) / weights.sum()
    variance = tf.reduce_sum(weights * (inputs - mean) ** 2, (0, 1)) / weights.sum()
    return gamma * (inputs - mean) / tf.sqrt(variance + layer.epsilon) + beta


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("is_masked", [False, True])
def test_synchronized_devices_normalize_and_differentiate_like_one(devices: int, is_masked: bool) -> None:
    random = np.random.default_rng(0)
    shards = [random.normal(2, 3, (number + 1, 5, 3)).astype(np.float32) for number in range(devices)]
    masks = [np.arange(each[..., 0].size).reshape(-1, 5) % 3 > 0 if is_masked else each[..., 0] < 99 for each in shards]
    strategy = make_strategy(Hardware(platform="cpu", devices=devices))
    with strategy.scope():
        layer = with_random_weights(FusedBatchNormalization(synchronized=True), (2, 5, 3))

    def replica() -> tuple[tf.Tensor, ...]:
        inputs, mask = by_replica(shards), by_replica(masks) if is_masked else None
        with recorded_moments():
            return derivatives(lambda inputs: layer(inputs, training=True, mask=mask), inputs)

    step = tf.function(lambda: strategy.run(replica), autograph=False)
    whole, mask = np.float64(np.concatenate(shards)), np.concatenate(masks)
    expected = derivatives(lambda inputs: normalized(inputs, mask, layer), tf.constant(whole))
    for values, reference in zip(step(), expected, strict=True):
        actual = np.concatenate([value.numpy() for value in strategy.experimental_local_results(values)])
        np.testing.assert_allclose(actual, reference, rtol=1e-3, atol=1e-4)
