"""One step: a batch in, weights changed, sums out. Written to be read from top to bottom."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from model_trainer.models.batch_norm import Moments
from model_trainer.models.training_copy import TrainingCopy
from model_trainer.specs import ModelSpec
from model_trainer.tasks.losses import to_probabilities
from model_trainer.tasks.task import Factors, Task
from model_trainer.training.average import WeightAverage
from model_trainer.training.gradients import Clip, add_up_parts, all_finite, clip_gradients
from model_trainer.training.replicas import of_one_replica, sum_over_replicas

__all__ = [
    "LOSS",
    "Predictions",
    "StepParts",
    "Taken",
    "Validated",
    "make_statistics_step",
    "make_train_step",
    "make_validation_step",
]

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images uint8, labels, weights
Sums = dict[str, tf.Tensor]
Predictions = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # targets, probabilities, weights

LOSS = "loss"

# One graph for each size of a batch, of which a run has two. A graph for any size would round differently, and which
# batches it computed would depend on where the process began: a resumed run would not get the same bits. The size is
# the whole batch's: of several processes each must build its graphs when the others do, or their sums would not meet.
SAME_GRAPH = functools.partial(tf.function, autograph=False, reduce_retracing=False)


class Taken(NamedTuple):
    """What a training step leaves.

    Attributes:
        sums: over the whole batch, on all devices: for "loss" `[sum of loss * weight, sum of weights]`, for each metric
            what `Metric.sums` says; zeros of a step that changed nothing.
        signs: float32 `(4,)`: sum of loss * weight, sum of weights, on how many devices loss or gradients were not
            finite, and how many were asked to stop.
    """

    sums: Sums
    signs: tf.Tensor


class Validated(NamedTuple):
    """What a validation step leaves.

    Attributes:
        sums: as of a training step.
        predictions: as each replica has them; with several processes those of all.
        stop: float32 `()`, how many devices were asked to stop.
    """

    sums: Sums
    predictions: Predictions
    stop: tf.Tensor


class StatisticsResult(NamedTuple):
    """What a step of statistics leaves.

    Attributes:
        moments: of batch normalisation, by layer, the mean over all replicas; zeros where they are not finite.
        is_finite: bool `()`.
        stop: float32 `()`, how many devices were asked to stop.
    """

    moments: dict[str, Moments]
    is_finite: tf.Tensor
    stop: tf.Tensor


TrainStep = Callable[[Batch, tf.Tensor, int, tf.Tensor], Taken]
ValidationStep = Callable[[Batch, int, tf.Tensor], Validated]
StatisticsStep = Callable[[Batch, tf.Tensor, int, tf.Tensor], StatisticsResult]


@dataclass(frozen=True)
class StepParts:
    """What a step is made of.

    Attributes:
        strategy: where it runs.
        network: the training copy.
        spec: its preprocessing is done here, on the device.
        task: loss and metrics.
        factors: of the training loss.
        batch_size: images in a whole batch, on all devices together.
        accumulation_steps: parts in which a batch is computed, one after another.
    """

    strategy: tf.distribute.Strategy
    network: TrainingCopy
    spec: ModelSpec
    task: Task
    factors: Factors
    batch_size: int
    accumulation_steps: int = 1

    @property
    def num_classes(self) -> int:
        return len(self.factors.of_class)


def make_train_step(
    parts: StepParts, optimizer: keras.optimizers.Optimizer, clip: Clip, average: WeightAverage | None
) -> TrainStep:
    """`train_step(batch, step, size, stop)`, compiled: one update of the weights that are trainable now.

    `size` is the number of rows over all processes, `stop` bool `()`. The loss includes the penalties on weights. A
    step whose loss or gradients are not finite changes nothing.
    """
    network, task, strategy = parts.network, parts.task, parts.strategy
    variables, num_replicas = network.model.trainable_variables, strategy.num_replicas_in_sync
    # A float64 one stays each replica's own: one reduction is for float32 alone.
    statistics = [each for each in network.statistics if each.dtype in ("float32", "bfloat16", "float16")]
    scales_loss = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

    def replica_gradients(
        images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, stop: tf.Tensor
    ) -> tuple[list[tf.Tensor], tuple[Taken, dict[str, Moments], list[tf.Tensor], tf.Tensor]]:
        old = [tf.identity(variable) for variable in statistics]
        targets = task.targets(labels, parts.num_classes)
        loss_weights = task.example_weights(targets, weights, parts.factors)
        # A mean of per-device means would not be the batch's mean when shares differ: the divisor is everybody's.
        (total_weight,) = sum_over_replicas([tf.reduce_sum(loss_weights)])
        # Keras adds gradients up over replicas, so the penalty, which all have whole, comes in shares.
        penalty_share = 1.0 / (num_replicas * parts.accumulation_steps)

        def of_part(
            number: int, images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, loss_weights: tf.Tensor
        ) -> tuple[list[tf.Tensor], Sums, dict[str, Moments]]:
            network.seeds.part = number
            with tf.GradientTape() as tape:
                logits, moments = network.training_pass(parts.spec.preprocess(images))
                weighted = tf.reduce_sum(task.losses(targets, logits, parts.factors) * loss_weights)
                penalty = _penalty(network.model)
                loss = tf.math.divide_no_nan(weighted, total_weight) + penalty * penalty_share
                scaled = optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            sums = _sums(parts, targets, logits[0], weights, weighted, tf.reduce_sum(loss_weights), penalty)
            return gradients, sums, moments

        gradients, sums, moments = add_up_parts(
            of_part, (images, targets, weights, loss_weights), parts.accumulation_steps
        )
        # Gradients that a loss scale makes too large for float16 are its own affair: it lowers itself.
        is_finite = optimizer.dynamic_scale >= 1.0 if scales_loss else all_finite(gradients)
        is_finite &= tf.math.is_finite(sums[LOSS][0])
        if moments:  # an infinite one would stay in its average for good
            is_finite &= tf.reduce_all(tf.math.is_finite(tf.concat(tf.nest.flatten(moments), 0)))
        signs = tf.stack([*tf.unstack(sums[LOSS]), tf.cast(~is_finite, tf.float32), tf.cast(stop, tf.float32)])
        # The means over replicas, and of batch normalisation also over parts, in the same reduction.
        moments = tf.nest.map_structure(lambda each: each / (num_replicas * parts.accumulation_steps), moments)
        # Changes, and not values: the mean of what nobody has changed is what it was, to the bit.
        changes = [
            tf.cast(variable - before, tf.float32) / num_replicas
            for variable, before in zip(statistics, old, strict=True)
        ]
        overflows = tf.cast(~all_finite(gradients), tf.float32) if scales_loss else tf.constant(0.0)
        return gradients, sum_over_replicas((Taken(sums, signs), moments, changes, overflows))

    def replica_update(gradients: list[tf.Tensor]) -> None:
        clipped = clip_gradients(gradients, clip, scale=optimizer.scale_loss(1.0), strategy=strategy)
        optimizer.apply_gradients(zip(clipped, variables, strict=True))

    @SAME_GRAPH
    def train_step(batch: Batch, step: tf.Tensor, size: int, stop: tf.Tensor) -> Taken:
        network.seeds.step = step
        before = [tf.identity(variable) for variable in network.statistics]
        gradients, of_replicas = strategy.run(replica_gradients, args=(*batch, stop))
        taken, moments, changes, overflows = of_one_replica(strategy, of_replicas)
        old = {id(variable): value for variable, value in zip(network.statistics, before, strict=True)}

        def move() -> tf.Tensor:
            network.averages.update(moments, strategy, size / parts.batch_size)
            if num_replicas > 1:  # each replica has changed its own
                for variable, change in zip(statistics, changes, strict=True):
                    variable.assign(old[id(variable)] + tf.cast(change, variable.dtype))
            if average is not None:
                average.update(step)
            return tf.constant(True)

        def undo() -> tf.Tensor:
            for variable, value in zip(network.statistics, before, strict=True):
                variable.assign(value)
            return tf.constant(False)

        def update() -> tf.Tensor:
            strategy.run(replica_update, args=(gradients,))
            # A step that the loss scale leaves out, because it was too large, moves nothing else either.
            _ = tf.cond(overflows == 0, move, undo) if scales_loss else move()
            return tf.constant(True)

        is_good = tf.cond(taken.signs[2] == 0, update, undo)
        return taken._replace(sums={name: tf.where(is_good, of, 0.0) for name, of in taken.sums.items()})

    return train_step


def make_statistics_step(parts: StepParts) -> StatisticsStep:
    """`statistics_step(batch, step, size, stop)`, compiled: the moments of a training pass that changes nothing."""
    network, strategy = parts.network, parts.strategy
    num_passes = strategy.num_replicas_in_sync * parts.accumulation_steps

    def replica_moments(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, stop: tf.Tensor) -> Any:
        def of_part(number: int, images: tf.Tensor) -> dict[str, Moments]:
            network.seeds.part = number
            return network.training_pass(parts.spec.preprocess(images))[1]

        moments = add_up_parts(of_part, (images,), parts.accumulation_steps)
        means = tf.nest.map_structure(lambda each: each / num_passes, moments)
        return sum_over_replicas((means, tf.cast(stop, tf.float32)))

    @SAME_GRAPH
    def statistics_step(batch: Batch, step: tf.Tensor, size: int, stop: tf.Tensor) -> StatisticsResult:
        network.seeds.step = step
        before = [tf.identity(variable) for variable in network.statistics]
        of_replicas = strategy.run(replica_moments, args=(*batch, stop))
        for variable, value in zip(network.statistics, before, strict=True):
            variable.assign(value)
        moments, stops = of_one_replica(strategy, of_replicas)
        is_finite = all_finite(tf.nest.flatten(moments)) if moments else tf.constant(True)
        return StatisticsResult(
            tf.nest.map_structure(lambda each: tf.where(is_finite, each, 0.0), moments), is_finite, stops
        )

    return statistics_step


def make_validation_step(parts: StepParts, gather: bool = False) -> ValidationStep:
    """`validation_step(batch, size, stop)`, compiled: the same sums without an update, dropout or factors.

    Args:
        gather: whether each process gets the predictions of all.
    """
    network, strategy, task = parts.network, parts.strategy, parts.task
    ones = Factors.ones(parts.num_classes)

    def replica_step(
        images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tuple[Sums, tf.Tensor], Predictions]:
        targets = task.targets(labels, parts.num_classes)
        loss_weights = task.example_weights(targets, weights, ones)
        logits = network.logits(parts.spec.preprocess(images), training=False)
        weighted = tf.reduce_sum(task.losses(targets, logits, ones) * loss_weights)
        penalty = _penalty(network.model)
        sums = _sums(parts, targets, logits[0], weights, weighted, tf.reduce_sum(loss_weights), penalty)
        predictions = (targets, to_probabilities(logits[0], task.loss_activation), tf.identity(weights))
        return sum_over_replicas((sums, tf.cast(stop, tf.float32))), predictions

    @SAME_GRAPH
    def validation_step(batch: Batch, size: int, stop: tf.Tensor) -> Validated:
        of_replicas, predictions = strategy.run(replica_step, args=(*batch, stop))
        if gather:
            predictions = tuple(strategy.gather(each, axis=0) for each in predictions)
        sums, stops = of_one_replica(strategy, of_replicas)
        return Validated(sums, predictions, stops)

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
