"""A training phase: the epochs in which the same layers train. Unfreezing layers starts a new phase."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from model_trainer.network.layers import exempt_from_decay
from model_trainer.run.optimizers import exclude_from_decay
from model_trainer.training.average import WeightAverage
from model_trainer.training.gradients import Clip
from model_trainer.training.observers import Observers
from model_trainer.training.prepare import PreparedRun
from model_trainer.training.step import make_statistics_step, make_train_step
from model_trainer.training.step_types import StatisticsStep, TrainStep

__all__ = ["Phase", "make_phase"]


@dataclass
class Phase:
    """An optimizer, its learning rate, and the steps that are traced for the layers that train.

    Attributes:
        learning_rate: as declared, before the schedule.
        is_traced: whether `step` has run, so that its graph exists.
    """

    learning_rate: float
    optimizer: keras.optimizers.Optimizer
    step: TrainStep
    statistics_step: StatisticsStep
    is_traced: bool = False


def make_phase(
    prepared: PreparedRun,
    optimizer: keras.optimizers.Optimizer,
    learning_rate: float,
    average: WeightAverage | None,
    observers: Observers,
) -> Phase:
    """Returns a phase before its first step. Builds the optimizer, with loss scaling in mixed_float16."""
    declared, model = prepared.run.training.optimizer, prepared.step_setup.network.model
    exclude_from_decay(optimizer, declared, exempt_from_decay(model))
    with prepared.step_setup.strategy.scope():
        if prepared.precision == "mixed_float16" and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    step = make_train_step(prepared.step_setup, optimizer, Clip.from_optimizer(declared), average, observers)
    return Phase(learning_rate, optimizer, step, make_statistics_step(prepared.step_setup))
