"""One step: a batch in, weights changed, sums out. Written to be read from top to bottom."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from model_trainer.network.batch_norm import Moments
from model_trainer.pipeline.batch import Batch
from model_trainer.tasks.task import BatchPredictions, Encoded, Factors, Task
from model_trainer.training.average import WeightAverage
from model_trainer.training.gradients import Clip, accumulate, all_finite, clip_gradients
from model_trainer.training.loss_scale import lower_scale, scale_of
from model_trainer.training.observers import Observers
from model_trainer.training.replicas import of_one_replica, sum_over_replicas
from model_trainer.training.step_types import (
    LOSS,
    SCALARS,
    StatisticsResult,
    StatisticsStep,
    StepResult,
    StepSetup,
    Sums,
    TrainStep,
    Validated,
    ValidationStep,
)

__all__ = ["make_statistics_step", "make_train_step", "make_validation_step"]

# One graph for each size of a batch, of which a run has two. A graph for any size would round differently, and which
# batches it computed would depend on where the process began: a resumed run would not get the same bits. The size is
# the whole batch's: of several processes each must build its graphs when the others do, or their sums would not meet.
SAME_GRAPH = functools.partial(tf.function, autograph=False, reduce_retracing=False)


def make_train_step(
    parts: StepSetup,
    optimizer: keras.optimizers.Optimizer,
    clip: Clip,
    average: WeightAverage | None,
    observers: Observers | None = None,
) -> TrainStep:
    """`train_step(batch, step, size, stop)`, compiled: one update of the weights that are trainable now.

    `size` is the number of rows over all processes, `stop` bool `()`. The loss includes the penalties on weights. A
    step whose loss or gradients are not finite changes nothing; where a loss scale was too large, it is lowered.
    """
    observers = observers or Observers()
    network, task, strategy = parts.network, parts.task, parts.strategy
    variables, num_replicas = network.model.trainable_variables, strategy.num_replicas_in_sync
    # Numbers that count something are the same on all replicas, or each replica's own.
    statistics = [each for each in network.statistics if keras.backend.is_float_dtype(each.dtype)]
    integers = [each for each in network.statistics if not keras.backend.is_float_dtype(each.dtype)]

    def replica_gradients(
        batch: Batch, stop: tf.Tensor, old: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tuple[Sums, tf.Tensor, dict[str, Moments], list[tf.Tensor], tf.Tensor]]:
        encoded = task.encode(batch, parts.factors, parts.loss_mean)
        # A mean of per-device means would not be the batch's mean when shares differ: the divisor is everybody's.
        (total,) = sum_over_replicas([tf.reduce_sum(encoded.counts)])
        # Keras adds gradients up over replicas, so the penalty, which all have whole, comes in shares.
        penalty_fraction = 1.0 / (num_replicas * parts.accumulation_steps)

        def of_part(number: int, part: tuple[Any, Encoded]) -> tuple[list[tf.Tensor], Sums, dict[str, Moments]]:
            network.seeds.begin_slice(number)
            inputs, encoded = part
            with tf.GradientTape() as tape:
                outputs, moments = network.training_pass(parts.spec.preprocess(inputs))
                weighted = task.loss_sum(outputs, encoded, parts.factors)
                penalty = _penalty(network.model)
                loss = tf.math.divide_no_nan(weighted, total) + penalty * penalty_fraction
                scaled = optimizer.scale_loss(loss)
            gradients = _dense(tape.gradient(scaled, variables), variables)
            return gradients, _sums(task, outputs, encoded, weighted, penalty), moments

        gradients, sums, moments = accumulate(of_part, (batch.inputs, encoded), parts.accumulation_steps)
        # Infinite moments would stay in their averages for good.
        is_broken = ~(tf.math.is_finite(sums[LOSS][0]) & all_finite(tf.nest.flatten(moments)))
        overflows, scale = ~all_finite(gradients), scale_of(optimizer)
        # Gradients that a loss scale makes too large for float16 are its own affair, as long as it makes them larger.
        is_finite = ~is_broken & (~overflows if scale is None else ~overflows | (scale >= 1.0))
        scalars = tf.stack([*tf.unstack(sums[LOSS]), tf.cast(~is_finite, tf.float32), tf.cast(stop, tf.float32)])
        # The means over replicas, and of batch normalisation also over parts, in the same reduction.
        moments = tf.nest.map_structure(lambda each: each / (num_replicas * parts.accumulation_steps), moments)
        # Changes, and not values: the mean of what nobody has changed is what it was, to the bit.
        changes = [
            tf.cast(variable - value, tf.float32) / num_replicas
            for variable, value in zip(statistics, old, strict=True)
        ]
        causes = tf.cast(tf.stack([overflows, is_broken]), tf.float32)
        return gradients, sum_over_replicas((sums, scalars, moments, changes, causes))

    def replica_update(gradients: list[tf.Tensor]) -> None:
        clipped = clip_gradients(gradients, clip, scale=optimizer.scale_loss(1.0), strategy=strategy)
        optimizer.apply_gradients(zip(clipped, variables, strict=True))

    @SAME_GRAPH
    def train_step(batch: Batch, step: tf.Tensor, size: int, stop: tf.Tensor) -> StepResult:
        old, old_integers = ([tf.identity(variable) for variable in each] for each in (statistics, integers))
        with network.seeds.at(step):
            gradients, of_replicas = strategy.run(replica_gradients, args=(batch, stop, old))
        sums, summed, moments, changes, causes = of_one_replica(strategy, of_replicas)
        scalars = dict(zip(SCALARS, tf.unstack(summed), strict=True))
        scale, before = optimizer.scale_loss(tf.constant(1.0)), observers.before_update(step, variables)

        def update() -> None:
            strategy.run(replica_update, args=(gradients,))
            network.averages.update(moments, strategy, size / parts.batch_size)
            if num_replicas > 1:  # each replica has changed its own
                for variable, value, change in zip(statistics, old, changes, strict=True):
                    variable.assign(value + tf.cast(change, variable.dtype))
            if average is not None:
                average.update(step)

        def undo() -> None:
            for variable, value in zip(statistics + integers, old + old_integers, strict=True):
                variable.assign(value)

        def whole_gradients() -> list[tf.Tensor]:
            def whole(of_replica: list[tf.Tensor]) -> list[tf.Tensor]:
                return sum_over_replicas([tf.cast(gradient, tf.float32) for gradient in of_replica])

            return of_one_replica(strategy, strategy.run(whole, args=(gradients,)))

        is_finite, overflows, is_broken = scalars["num_broken"] == 0, causes[0] > 0, causes[1] > 0
        tf.cond(is_finite & ~overflows, update, undo)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            lower_scale(optimizer, overflows & ~is_broken)
        observed = observers.after_update(step, scalars, variables, before, whole_gradients, scale)
        return StepResult({name: tf.where(is_finite, of, 0.0) for name, of in sums.items()}, scalars, observed)

    return train_step


def make_statistics_step(parts: StepSetup) -> StatisticsStep:
    """`statistics_step(batch, step, size, stop)`, compiled: the moments of a training pass that changes nothing."""
    network, strategy = parts.network, parts.strategy
    num_passes = strategy.num_replicas_in_sync * parts.accumulation_steps

    def replica_moments(batch: Batch, stop: tf.Tensor) -> Any:
        def of_part(number: int, images: tf.Tensor) -> dict[str, Moments]:
            network.seeds.begin_slice(number)
            return network.training_pass(parts.spec.preprocess(images))[1]

        moments = accumulate(of_part, batch.inputs, parts.accumulation_steps)
        means = tf.nest.map_structure(lambda each: each / num_passes, moments)
        return sum_over_replicas((means, tf.cast(stop, tf.float32)))

    @SAME_GRAPH
    def statistics_step(batch: Batch, step: tf.Tensor, size: int, stop: tf.Tensor) -> StatisticsResult:
        before = [tf.identity(variable) for variable in network.statistics]
        with network.seeds.at(step):
            of_replicas = strategy.run(replica_moments, args=(batch, stop))
        for variable, value in zip(network.statistics, before, strict=True):
            variable.assign(value)
        moments, stops = of_one_replica(strategy, of_replicas)
        is_finite = all_finite(tf.nest.flatten(moments))
        return StatisticsResult(
            tf.nest.map_structure(lambda each: tf.where(is_finite, each, 0.0), moments), is_finite, stops
        )

    return statistics_step


def make_validation_step(parts: StepSetup, gather: bool = False) -> ValidationStep:
    """`validation_step(batch, size, stop)`, compiled: the same sums without an update, dropout or factors.

    Args:
        gather: whether each process gets the predictions of all.
    """
    network, strategy, task = parts.network, parts.strategy, parts.task
    ones = Factors.ones(parts.num_classes)

    def replica_step(batch: Batch, stop: tf.Tensor) -> tuple[tuple[Sums, tf.Tensor], BatchPredictions]:
        encoded = task.encode(batch, ones, parts.loss_mean)
        outputs = network.outputs(parts.spec.preprocess(batch.inputs), training=False)
        weighted = task.loss_sum(outputs, encoded, ones)
        sums = _sums(task, outputs, encoded, weighted, _penalty(network.model))
        predictions = tf.nest.map_structure(tf.identity, task.predictions(outputs, encoded))
        return sum_over_replicas((sums, tf.cast(stop, tf.float32))), predictions

    @SAME_GRAPH
    def validation_step(batch: Batch, size: int, stop: tf.Tensor) -> Validated:
        of_replicas, predictions = strategy.run(replica_step, args=(batch, stop))
        if gather:
            predictions = tf.nest.map_structure(lambda each: strategy.gather(each, axis=0), predictions)
        sums, stops = of_one_replica(strategy, of_replicas)
        return Validated(sums, predictions, stops)

    return validation_step


def _dense(gradients: list[Any], variables: list[keras.Variable]) -> list[tf.Tensor]:
    """Zeros where the loss does not depend on a variable, and whole tensors where only some rows have a gradient."""
    return [
        tf.zeros(variable.shape, variable.dtype) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _sums(task: Task, outputs: list[tf.Tensor], encoded: Encoded, weighted_loss: tf.Tensor, penalty: tf.Tensor) -> Sums:
    count = tf.reduce_sum(encoded.counts)
    return {LOSS: tf.stack([weighted_loss + penalty * count, count]), **task.metric_sums(outputs, encoded)}


def _penalty(model: keras.Model) -> tf.Tensor:
    losses = model.losses
    return tf.add_n([tf.cast(loss, tf.float32) for loss in losses]) if losses else tf.constant(0.0)
