"""Structured targets, a ragged number of boxes and a group id, on several devices and with gradient accumulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Hardware, Run
from model_trainer.pipeline.batch import Batch
from model_trainer.sources.examples import Examples
from model_trainer.tasks.head import HeadOptions, make_head
from model_trainer.tasks.metrics import Metric
from model_trainer.tasks.task import Factors, Task
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step

MakeRun = Callable[..., Run]

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
BOXES = [[[0.0, 0.0, 0.5, 0.5]], [], [[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]], [[0.2, 0.2, 0.4, 0.4]] * 3]
GROUPS = np.array([7, 7, 9, 9])


@final
class Covered(Task):
    """The area of an image's boxes, and a little of its group, as one number."""

    metrics: tuple[Metric, ...] = ()

    def check(self, examples: Examples) -> None:
        pass

    def factors(self, examples: Examples) -> Factors:
        return Factors.ones(len(examples.classes))

    def head(self, features: keras.KerasTensor, options: HeadOptions, num_classes: int) -> list[keras.KerasTensor]:
        return make_head(features, options, (), 1)

    @property
    def head_activation(self) -> Literal["none"]:
        return "none"

    def probabilities(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        return outputs[0]

    def targets(self, labels: Any, num_classes: int) -> Any:
        return labels

    def example_weights(self, targets: Any, weights: tf.Tensor, factors: Factors) -> tf.Tensor:
        return weights

    def losses(self, targets: Any, outputs: list[tf.Tensor], factors: Factors) -> tf.Tensor:
        boxes = targets["boxes"]
        areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        wanted = tf.reduce_sum(areas, axis=1) + 0.01 * tf.cast(targets["group"], tf.float32)
        return tf.square(outputs[0][:, 0] - wanted)

    def decode(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError


def after_a_step(run: Run) -> tuple[float, list[np.ndarray]]:
    """The loss of a step over the four images, and the weights after it."""
    prepared = prepare(run)
    strategy, model = prepared.step_setup.strategy, prepared.step_setup.network.model
    with strategy.scope():
        prepared.optimizer.build(model.trainable_variables)
    boxes = tf.ragged.constant(BOXES, ragged_rank=1, inner_shape=(4,), dtype=tf.float32)
    batch = Batch(IMAGES, {"boxes": boxes, "group": GROUPS}, np.ones(4, np.float32))
    shards = tf.data.Dataset.from_tensor_slices(batch).batch(4 // strategy.num_replicas_in_sync, drop_remainder=True)
    (placed,) = prepared.distributed(shards)
    step = make_train_step(prepared.step_setup, prepared.optimizer, Clip(), None)
    result = step(placed, tf.constant(0, tf.int64), 4, tf.constant(False))
    assert result.scalars["num_examples"] == 4
    return float(result.scalars["loss_sum"]), [np.array(weight) for weight in model.weights]


def test_ragged_boxes_and_group_ids_train_the_same_on_two_devices_and_with_accumulation(make_run: MakeRun) -> None:
    run = make_run(task=Covered(), training__optimizer={"type": "SGD"}, network__dropout_rate=0.0)
    loss, weights = after_a_step(run)
    assert loss > 0
    for changes in ({"hardware": Hardware(platform="cpu", devices=2)}, {"training.accumulation_steps": 2}):
        other_loss, other_weights = after_a_step(run.changed_all(changes))
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for ours, theirs in zip(weights, other_weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
