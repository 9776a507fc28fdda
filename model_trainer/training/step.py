"""One step: a batch in, weights changed, sums out. Written to be read from top to bottom."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from model_trainer.models.training_copy import TrainingCopy
from model_trainer.specs import ModelSpec
from model_trainer.tasks.losses import to_probabilities
from model_trainer.tasks.task import Factors, Task
from model_trainer.training.gradients import Clip, clip_gradients

__all__ = ["LOSS", "Predictions", "StepParts", "make_train_step", "make_validation_step"]

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images uint8, labels, weights
Sums = dict[str, tf.Tensor]
Predictions = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # targets, probabilities, weights

LOSS = "loss"

# One graph for each size of a batch, of which a run has two. A graph for any size would round differently, and which
# batches it computed would depend on where the process began: a resumed run would not get the same bits.
SAME_GRAPH = functools.partial(tf.function, autograph=False, reduce_retracing=False)


@dataclass(frozen=True)
class StepParts:
    """What a step is made of.

    Attributes:
        strategy: where it runs.
        network: the training copy.
        spec: its preprocessing is done here, on the device.
        task: loss and metrics.
        factors: of the training loss.
    """

    strategy: tf.distribute.Strategy
    network: TrainingCopy
    spec: ModelSpec
    task: Task
    factors: Factors

    @property
    def num_classes(self) -> int:
        return len(self.factors.of_class)


def make_train_step(
    parts: StepParts, optimizer: keras.optimizers.Optimizer, clip: Clip
) -> Callable[[Batch, tf.Tensor], Sums]:
    """`train_step(batch, step)`, compiled: one update of the weights that are trainable now.

    It returns sums over the whole batch, on all devices: for "loss" `[sum of loss * weight, sum of weights]`, for
    each metric what `Metric.sums` says. The loss includes the penalties on weights.
    """
    network, task, strategy = parts.network, parts.task, parts.strategy
    variables = network.model.trainable_variables

    def replica_step(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> Sums:
        targets = task.targets(labels, parts.num_classes)
        loss_weights = task.example_weights(targets, weights, parts.factors)
        # A mean of per-device means would not be the batch's mean when shares differ: the divisor is everybody's.
        total_weight = _sum_over_replicas(tf.reduce_sum(loss_weights))
        with tf.GradientTape() as tape:
            logits = network.logits(parts.spec.preprocess(images), training=True)
            weighted = tf.reduce_sum(task.losses(targets, logits, parts.factors) * loss_weights)
            penalty = _penalty(network.model)
            # Keras adds gradients up over replicas, so the penalty, which all have whole, comes in shares.
            loss = tf.math.divide_no_nan(weighted, total_weight) + penalty / strategy.num_replicas_in_sync
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        gradients = clip_gradients(gradients, clip, scale=optimizer.scale_loss(1.0), strategy=strategy)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return _sums(parts, targets, logits[0], weights, weighted, tf.reduce_sum(loss_weights), penalty)

    @SAME_GRAPH
    def train_step(batch: Batch, step: tf.Tensor) -> Sums:
        network.seeds.step = step
        return _sum_outside(strategy, strategy.run(replica_step, args=batch))

    return train_step


def make_validation_step(parts: StepParts) -> Callable[[Batch], tuple[Sums, Predictions]]:
    """`validation_step(batch)`, compiled: the same sums without an update, dropout or factors, and what was predicted.

    The predictions come as each replica has them.
    """
    network, strategy, task = parts.network, parts.strategy, parts.task
    ones = Factors.ones(parts.num_classes)

    def replica_step(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[Sums, Predictions]:
        targets = task.targets(labels, parts.num_classes)
        loss_weights = task.example_weights(targets, weights, ones)
        logits = network.logits(parts.spec.preprocess(images), training=False)
        weighted = tf.reduce_sum(task.losses(targets, logits, ones) * loss_weights)
        penalty = _penalty(network.model)
        sums = _sums(parts, targets, logits[0], weights, weighted, tf.reduce_sum(loss_weights), penalty)
        return sums, (targets, to_probabilities(logits[0], task.loss_activation), weights)

    @SAME_GRAPH
    def validation_step(batch: Batch) -> tuple[Sums, Predictions]:
        sums, predictions = strategy.run(replica_step, args=batch)
        return _sum_outside(strategy, sums), predictions

    return validation_step


def _sums(
    parts: StepParts,
    targets: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor,
    weighted_loss: tf.Tensor,
    loss_weight: tf.Tensor,
    penalty: tf.Tensor,
) -> Sums:
    probabilities = to_probabilities(logits, parts.task.loss_activation)
    sums = {LOSS: tf.stack([weighted_loss + penalty * loss_weight, loss_weight])}
    for metric in parts.task.counted_metrics:
        sums[metric.name] = metric.sums(targets, probabilities, weights)
    return sums


def _penalty(model: keras.Model) -> tf.Tensor:
    losses = model.losses
    return tf.add_n([tf.cast(loss, tf.float32) for loss in losses]) if losses else tf.constant(0.0)


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return value if context.num_replicas_in_sync == 1 else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _sum_outside(strategy: tf.distribute.Strategy, sums: Sums) -> Sums:
    if strategy.num_replicas_in_sync == 1:
        return sums
    return {name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for name, value in sums.items()}
