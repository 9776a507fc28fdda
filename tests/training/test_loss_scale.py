"""The loss scale of mixed_float16, on one device and on two: an overflow on one skips the step on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Hardware, OwnModel, Run
from model_trainer.pipeline.batch import Batch
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import PreparedRun, prepare
from model_trainer.training.step import make_train_step
from model_trainer.training.step_types import StepResult

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs")

MakeRun = Callable[..., Run]


@pytest.fixture(params=[1, 2])
def prepared(request: pytest.FixtureRequest, make_run: MakeRun) -> PreparedRun:
    """A dense layer that computes in float16 on pixels of 0 to 1000, on one device and on two."""
    images = keras.Input((16, 16, 3))
    pixels = keras.layers.Rescaling(4.0)(keras.layers.GlobalMaxPooling2D()(images))
    hidden = keras.layers.Dense(3, kernel_initializer="zeros", name="dense")(pixels)
    network = OwnModel(keras.Model(images, keras.layers.Dense(3, kernel_initializer="identity", name="last")(hidden)))
    hardware = Hardware(devices=request.param, platform="cpu")
    changes = {"spec__preprocess_func": "none", "training__precision": "mixed_float16"}
    return prepare(make_run(network=network, hardware=hardware, **changes))


def make_step(prepared: PreparedRun, clip: Clip, scale: float) -> tuple[Any, Callable[[np.ndarray], StepResult]]:
    """The optimizer, and a step on two images of the class 0."""
    strategy = prepared.step_setup.strategy
    with strategy.scope():
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), scale, dynamic_growth_steps=2)
        optimizer.build(prepared.step_setup.network.model.trainable_variables)
    step = make_train_step(prepared.step_setup, optimizer, clip, None)
    devices = strategy.num_replicas_in_sync

    def take(images: np.ndarray) -> StepResult:
        def placed(column: np.ndarray) -> Any:
            if devices == 1:
                return tf.constant(column)
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(column[context.replica_id_in_sync_group :][:1])
            )

        batch = Batch(placed(images), placed(np.zeros(2, np.int32)), placed(np.ones(2, np.float32)))
        return step(batch, tf.constant(0, tf.int64), 2, tf.constant(False))

    return optimizer, take


def kernels(prepared: PreparedRun) -> list[np.ndarray]:
    """On each device."""
    variable = prepared.step_setup.network.model.get_layer("dense").kernel.value
    return [each.numpy() for each in prepared.step_setup.strategy.experimental_local_results(variable)]


LAST_IS_BRIGHT = np.stack([np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)])
DARK = np.ones((2, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("clip", [Clip(), Clip(value=1.0), Clip(norm=1.0)], ids=["plain", "value", "norm"])
def test_an_overflow_on_the_last_device_changes_no_weight_and_halves_the_scale(
    prepared: PreparedRun, clip: Clip
) -> None:
    optimizer, take = make_step(prepared, clip, 2.0**15)  # times a pixel of 1,000 it is infinite in float16
    result = take(LAST_IS_BRIGHT)
    assert result.scalars["num_broken"] == 0  # handled by the loss scale, so it is not a bad step
    for kernel in kernels(prepared):
        np.testing.assert_array_equal(kernel, 0.0)
    scales = prepared.step_setup.strategy.experimental_local_results(optimizer.dynamic_scale.value)
    assert [float(scale.numpy()) for scale in scales] == [2.0**14] * len(scales)


def test_training_continues_with_a_loss_scale_below_1(prepared: PreparedRun) -> None:
    optimizer, take = make_step(prepared, Clip(), 0.25)
    assert take(DARK).scalars["num_broken"] == 0
    first, *others = kernels(prepared)
    assert (first != 0).all()
    for kernel in others:
        np.testing.assert_array_equal(kernel, first)
    take(DARK)
    assert float(optimizer.dynamic_scale.numpy()) == 0.5  # it grows again


def test_an_overflow_with_a_loss_scale_below_1_counts_as_a_bad_step(prepared: PreparedRun) -> None:
    optimizer, take = make_step(prepared, Clip(), 0.25)
    prepared.step_setup.network.model.get_layer("last").kernel.assign(np.eye(3) * 1e4)  # the loss stays what it was
    result = take(LAST_IS_BRIGHT)
    assert np.isfinite(result.scalars["loss_sum"])
    assert result.scalars["num_broken"] > 0
    assert float(optimizer.dynamic_scale.numpy()) == 0.125


def test_a_nan_loss_leaves_the_loss_scale_unchanged(prepared: PreparedRun) -> None:
    optimizer, take = make_step(prepared, Clip(), 2.0**15)
    prepared.step_setup.network.model.get_layer("dense").kernel.assign(np.full((3, 3), np.nan))
    assert take(DARK).scalars["num_broken"] > 0
    assert float(optimizer.dynamic_scale.numpy()) == 2.0**15
