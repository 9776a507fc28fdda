"""What a step takes and leaves, and what it is made of."""

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
    "Validated",
    "ValidationStep",
]

Sums = dict[str, tf.Tensor]

LOSS = "loss"
SCALARS = ("loss_sum", "num_examples", "num_broken", "num_stopping")  # see `ObservedStep.scalars`


class StepResult(NamedTuple):
    """What a training step leaves.

    Attributes:
        sums: over the whole batch, on all devices: for "loss" `[sum of loss * weight, what it is divided by]`, for each
            metric what `Metric.sums` says; zeros of a step whose loss or gradients were not finite.
        scalars: see `ObservedStep.scalars`.
        observed: what the observers computed, see `Observers.after_update`.
    """

    sums: Sums
    scalars: dict[str, tf.Tensor]
    observed: dict[str, tf.Tensor]


class Validated(NamedTuple):
    """What a validation step leaves.

    Attributes:
        sums: as of a training step.
        predictions: as each replica has them; with several processes those of all.
        stop: float32 `()`, how many devices were asked to stop.
    """

    sums: Sums
    predictions: BatchPredictions
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


TrainStep = Callable[[Batch, tf.Tensor, int, tf.Tensor], StepResult]
ValidationStep = Callable[[Batch, int, tf.Tensor], Validated]
StatisticsStep = Callable[[Batch, tf.Tensor, int, tf.Tensor], StatisticsResult]


@dataclass(frozen=True)
class StepSetup:
    """What a step is made of.

    Attributes:
        strategy: where it runs.
        network: the training copy.
        spec: its preprocessing is done here, on the device.
        task: loss and metrics.
        factors: of the training loss.
        batch_size: images in a whole batch, on all devices together.
        accumulation_steps: parts in which a batch is computed, one after another.
        loss_mean: what a batch's loss is divided by; see `Training.loss_mean`.
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
        return len(self.factors.of_class)
