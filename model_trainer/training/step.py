"""The compiled steps of training, validation and batch statistics. Written to be read from top to bottom."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
from model_trainer.training.replicas import first_replica, sum_over_replicas
from model_trainer.training.step_types import (
    LOSS,
    SCALARS,
    StatisticsResult,
    StatisticsStep,
    StepResult,
    StepSetup,
    Sums,
    TrainStep,
    ValidationResult,
    ValidationStep,
)

__all__ = ["make_statistics_step", "make_train_step", "make_validation_step"]


def traced_per_batch_size(function: Callable[..., Any]) -> Any:
    """Makes a step a `tf.function` with one graph per batch size, of which a run has two.

    A graph for any size would round differently, and which batches it computes would depend on where the process
    started: a resumed run would not be identical. The size is that of the whole batch, because all processes must trace
    their graphs at the same time for their all-reduces to match.
    """
    # TensorFlow counts how often functions of the same code are traced. Each run of a process, such as a fold, has
    # steps of its own, and from the third on it would warn that one function is traced again and again. A partial has
    # no code of its own, so each step is counted alone, and real retracing still warns.
    step = functools.partial(function)
    step.__name__ = function.__name__  # type: ignore[attr-defined]  # the name of the graph in profiles
    return tf.function(step, autograph=False, reduce_retracing=False)


def make_train_step(
    setup: StepSetup,
    optimizer: keras.optimizers.Optimizer,
    clip: Clip,
    average: WeightAverage | None,
    observers: Observers | None = None,
) -> TrainStep:
    """Returns the compiled `train_step(batch, step, size, stop)`: one update of the weights that are trainable now.

    `step` is int64 `()`, its number in the run; `size` the number of rows over all processes; `stop` bool `()`. The
    loss includes the penalties on weights. A step whose loss or gradients are not finite changes nothing, except that
    an overflow lowers the loss scale.
    """
    observers = observers or Observers()
    network, task, strategy = setup.network, setup.task, setup.strategy
    variables, num_replicas = network.model.trainable_variables, strategy.num_replicas_in_sync
    # Integers, such as counters, are not averaged over replicas.
    statistics = [var for var in network.statistics if keras.backend.is_float_dtype(var.dtype)]
    integers = [var for var in network.statistics if not keras.backend.is_float_dtype(var.dtype)]

    def replica_gradients(
        batch: Batch, stop: tf.Tensor, old: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tuple[Sums, tf.Tensor, dict[str, Moments], list[tf.Tensor], tf.Tensor]]:
        encoded = task.encode(batch, setup.factors, setup.loss_mean)
        # The divisor is the sum over all replicas: a mean of means is not the batch's mean if shards differ in size.
        (divisor,) = sum_over_replicas([tf.reduce_sum(encoded.counts)])
        # Keras sums gradients over replicas, and each computes the whole penalty, so each adds a fraction of it.
        penalty_fraction = 1.0 / (num_replicas * setup.accumulation_steps)

        def slice_gradients(index: int, rows: tuple[Any, Encoded]) -> tuple[list[tf.Tensor], Sums, dict[str, Moments]]:
            network.seeds.begin_slice(index)
            inputs, encoded = rows
            with tf.GradientTape() as tape:
                outputs, moments = network.training_pass(setup.spec.preprocess(inputs))
                weighted_loss = task.loss_sum(outputs, encoded, setup.factors)
                penalty = _penalty(network.model)
                loss = tf.math.divide_no_nan(weighted_loss, divisor) + penalty * penalty_fraction
                scaled_loss = optimizer.scale_loss(loss)
            gradients = _dense(tape.gradient(scaled_loss, variables), variables)
            return gradients, _sums(task, outputs, encoded, weighted_loss, penalty), moments

        gradients, sums, moments = accumulate(slice_gradients, (batch.inputs, encoded), setup.accumulation_steps)
        # Infinite moments would never leave their moving averages.
        is_broken = ~(tf.math.is_finite(sums[LOSS][0]) & all_finite(tf.nest.flatten(moments)))
        overflows, scale = ~all_finite(gradients), scale_of(optimizer)
        # An overflow that a loss scale of 1 or more may have caused is not a bad step: it lowers the scale.
        is_finite = ~is_broken & (~overflows if scale is None else ~overflows | (scale >= 1.0))
        scalars = tf.stack([*tf.unstack(sums[LOSS]), tf.cast(~is_finite, tf.float32), tf.cast(stop, tf.float32)])
        # Means over replicas, and for batch normalization also over slices, by the same all-reduce.
        moments = tf.nest.map_structure(lambda moment: moment / (num_replicas * setup.accumulation_steps), moments)
        # Differences instead of values, so that an unchanged variable stays exactly the same.
        changes = [
            tf.cast(variable - value, tf.float32) / num_replicas
            for variable, value in zip(statistics, old, strict=True)
        ]
        causes = tf.cast(tf.stack([overflows, is_broken]), tf.float32)
        return gradients, sum_over_replicas((sums, scalars, moments, changes, causes))

    def replica_update(gradients: list[tf.Tensor]) -> None:
        clipped = clip_gradients(gradients, clip, scale=optimizer.scale_loss(1.0), strategy=strategy)
        optimizer.apply_gradients(zip(clipped, variables, strict=True))

    @traced_per_batch_size
    def train_step(batch: Batch, step: tf.Tensor, size: int, stop: tf.Tensor) -> StepResult:
        old, old_integers = ([tf.identity(variable) for variable in group] for group in (statistics, integers))
        with network.seeds.at(step):
            gradients, totals = strategy.run(replica_gradients, args=(batch, stop, old))
        sums, scalar_sums, moments, changes, causes = first_replica(strategy, totals)
        scalars = dict(zip(SCALARS, tf.unstack(scalar_sums), strict=True))
        scale, before = optimizer.scale_loss(tf.constant(1.0)), observers.before_update(step, variables)

        def update() -> None:
            strategy.run(replica_update, args=(gradients,))
            network.moving_statistics.update(moments, strategy, size / setup.batch_size)
            if num_replicas > 1:  # each replica has changed its own copy
                for variable, value, change in zip(statistics, old, changes, strict=True):
                    variable.assign(value + tf.cast(change, variable.dtype))
            if average is not None:
                average.update(step)

        def undo() -> None:
            for variable, value in zip(statistics + integers, old + old_integers, strict=True):
                variable.assign(value)

        def batch_gradients() -> list[tf.Tensor]:
            def replica_sum(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
                return sum_over_replicas([tf.cast(gradient, tf.float32) for gradient in gradients])

            return first_replica(strategy, strategy.run(replica_sum, args=(gradients,)))

        is_finite, overflows, is_broken = scalars["num_broken"] == 0, causes[0] > 0, causes[1] > 0
        tf.cond(is_finite & ~overflows, update, undo)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            lower_scale(optimizer, overflows & ~is_broken)
        observed = observers.after_update(step, scalars, variables, before, batch_gradients, scale)
        return StepResult({name: tf.where(is_finite, total, 0.0) for name, total in sums.items()}, scalars, observed)

    return train_step


def make_statistics_step(setup: StepSetup) -> StatisticsStep:
    """Returns the compiled `statistics_step(batch, step, size, stop)`: the batch moments of a forward pass.

    It runs in training mode, and changes no variable.
    """
    network, strategy = setup.network, setup.strategy
    num_passes = strategy.num_replicas_in_sync * setup.accumulation_steps

    def replica_moments(batch: Batch, stop: tf.Tensor) -> Any:
        def slice_moments(index: int, images: tf.Tensor) -> dict[str, Moments]:
            network.seeds.begin_slice(index)
            return network.training_pass(setup.spec.preprocess(images))[1]

        moments = accumulate(slice_moments, batch.inputs, setup.accumulation_steps)
        means = tf.nest.map_structure(lambda moment: moment / num_passes, moments)
        return sum_over_replicas((means, tf.cast(stop, tf.float32)))

    @traced_per_batch_size
    def statistics_step(batch: Batch, step: tf.Tensor, size: int, stop: tf.Tensor) -> StatisticsResult:
        before = [tf.identity(variable) for variable in network.statistics]
        with network.seeds.at(step):
            totals = strategy.run(replica_moments, args=(batch, stop))
        for variable, value in zip(network.statistics, before, strict=True):
            variable.assign(value)
        moments, stops = first_replica(strategy, totals)
        is_finite = all_finite(tf.nest.flatten(moments))
        return StatisticsResult(
            tf.nest.map_structure(lambda moment: tf.where(is_finite, moment, 0.0), moments), is_finite, stops
        )

    return statistics_step


def make_validation_step(setup: StepSetup, gather: bool = False) -> ValidationStep:
    """Returns the compiled `validation_step(batch, size, stop)`: sums without update, dropout or class weights.

    Args:
        gather: whether each process gets the predictions of all processes.
    """
    network, strategy, task = setup.network, setup.strategy, setup.task
    ones = Factors.ones(setup.num_classes)

    def replica_step(batch: Batch, stop: tf.Tensor) -> tuple[tuple[Sums, tf.Tensor], BatchPredictions]:
        encoded = task.encode(batch, ones, setup.loss_mean)
        outputs = network.outputs(setup.spec.preprocess(batch.inputs), training=False)
        weighted_loss = task.loss_sum(outputs, encoded, ones)
        sums = _sums(task, outputs, encoded, weighted_loss, _penalty(network.model))
        predictions = tf.nest.map_structure(tf.identity, task.predictions(outputs, encoded))
        return sum_over_replicas((sums, tf.cast(stop, tf.float32))), predictions

    @traced_per_batch_size
    def validation_step(batch: Batch, size: int, stop: tf.Tensor) -> ValidationResult:
        totals, predictions = strategy.run(replica_step, args=(batch, stop))
        if gather:
            predictions = tf.nest.map_structure(lambda tensor: strategy.gather(tensor, axis=0), predictions)
        sums, stops = first_replica(strategy, totals)
        return ValidationResult(sums, predictions, stops)

    return validation_step


def _dense(gradients: list[Any], variables: list[keras.Variable]) -> list[tf.Tensor]:
    """Converts gradients to dense tensors; None, where the loss does not depend on a variable, becomes zeros."""
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
