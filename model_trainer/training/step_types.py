"""The types of the training, validation and statistics steps, of their setup and of their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from model_trainer.network.batch_norm import Moments
from model_trainer.network.training_copy import TrainingCopy
from model_trainer.pipeline.batch import Batch
from model_trainer.specs import ModelSpec
from model_trainer.tasks.task import BatchPredictions, Factors, Task

__all__ = [
    "LOSS",
    "SCALARS",
    "StatisticsResult",
    "StatisticsStep",
    "StepResult",
    "StepSetup",
    "Sums",
    "TrainStep",
    "ValidationResult",
    "ValidationStep",
]

Sums = dict[str, tf.Tensor]

LOSS = "loss"
SCALARS = ("loss_sum", "num_examples", "num_broken", "num_stopping")  # see `ObservedStep.scalars`


class StepResult(NamedTuple):
    """The result of a training step.

    Attributes:
        sums: over the whole batch, on all devices: for "loss" `[sum of loss * weight, divisor]`, for each metric the
            result of `AdditiveMetric.sums`; zeros if the loss or gradients of the step were not finite.
        scalars: see `ObservedStep.scalars`.
        observed: the values of the observers, see `Observers.after_update`.
    """

    sums: Sums
    scalars: dict[str, tf.Tensor]
    observed: dict[str, tf.Tensor]


class ValidationResult(NamedTuple):
    """The result of a validation step.

    Attributes:
        sums: as in `StepResult`.
        predictions: one value per replica; with several processes the predictions of all of them.
        stop: float32 `()`, the number of devices whose process was asked to stop.
    """

    sums: Sums
    predictions: BatchPredictions
    stop: tf.Tensor


class StatisticsResult(NamedTuple):
    """The result of a statistics step.

    Attributes:
        moments: of batch normalization, by layer, the mean over all replicas; zeros if they are not finite.
        is_finite: bool `()`.
        stop: float32 `()`, the number of devices whose process was asked to stop.
    """

    moments: dict[str, Moments]
    is_finite: tf.Tensor
    stop: tf.Tensor


TrainStep = Callable[[Batch, tf.Tensor, int, tf.Tensor], StepResult]
ValidationStep = Callable[[Batch, int, tf.Tensor], ValidationResult]
StatisticsStep = Callable[[Batch, tf.Tensor, int, tf.Tensor], StatisticsResult]


@dataclass(frozen=True)
class StepSetup:
    """Everything that a step is built from.

    Attributes:
        strategy: distributes the step over the devices.
        network: the training copy of the network.
        spec: its preprocessing runs in the step, on the device.
        task: loss and metrics.
        factors: class weights and similar factors of the training loss.
        batch_size: images in a full batch, over all devices together.
        accumulation_steps: number of slices of a batch that are computed one after another.
        loss_mean: divisor of a batch's loss; see `Training.loss_mean`.
    """

    strategy: tf.distribute.Strategy
    network: TrainingCopy
    spec: ModelSpec
    task: Task
    factors: Factors
    batch_size: int
    accumulation_steps: int = 1
    loss_mean: str = "examples"

    @property
    def num_classes(self) -> int:
        return len(self.factors.class_weights)
