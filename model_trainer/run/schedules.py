"""Learning-rate schedules: a factor on the learning rate as a function of the step.

A schedule has no state: the factor of `ReduceOnPlateau` is computed from the metrics of the epochs so far. All start
with `warmup_epochs` (fractions are allowed), in which the factor rises linearly from near 0 to 1; the curve itself
spans the remaining epochs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, final

from pydantic import Field

from model_trainer.config import Choice

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "InverseTime",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
]


class Schedule(Choice):
    """A factor on the learning rate, after a linear warm-up.

    Fields:
        warmup_epochs: length of the warm-up, in epochs.
    """

    warmup_epochs: float = Field(0.0, ge=0)

    def factor(self, step: int, steps_per_epoch: int, epochs: int, history: Sequence[dict[str, float]] = ()) -> float:
        """Returns the factor for a step.

        Args:
            step: counted from 0 over the whole run.
            steps_per_epoch: number of training steps in an epoch.
            epochs: length of the run.
            history: metrics (loss, val_loss, ...) of each finished epoch.
        """
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        steps_left = max(1, epochs * steps_per_epoch - warmup_steps)
        return self.curve(step - warmup_steps, steps_left, steps_per_epoch, history)

    @abstractmethod
    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        """Returns the factor after the warm-up; `step` runs from 0, the end of the warm-up, to `num_steps` - 1."""

    @property
    def moves(self) -> bool:
        """Whether the factor changes over steps; if not, a learning rate that a callback sets is kept."""
        return True


@final
class Constant(Schedule):
    """No change of the learning rate, except for the warm-up.

    Example:
        >>> schedule = Constant(warmup_epochs=2)
        >>> [schedule.factor(step, steps_per_epoch=1, epochs=4) for step in range(4)]
        [0.5, 1.0, 1.0, 1.0]
    """

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return 1.0

    @property
    def moves(self) -> bool:
        return self.warmup_epochs > 0


@final
class Cosine(Schedule):
    """Cosine decay from 1 to `final` at the end of the run.

    Example:
        >>> schedule = Cosine()
        >>> [round(schedule.factor(step, steps_per_epoch=1, epochs=4), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]

    Source: https://arxiv.org/abs/1608.03983
    """

    final: float = Field(0.0, ge=0, le=1)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


@final
class StepDecay(Schedule):
    """Multiplies the learning rate by `rate` every `every_epochs` epochs.

    Example:
        >>> schedule = StepDecay(every_epochs=2, rate=0.5)
        >>> [schedule.factor(step, steps_per_epoch=1, epochs=6) for step in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    every_epochs: float = Field(10.0, gt=0)
    rate: float = Field(0.1, gt=0)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.rate ** math.floor(step / (self.every_epochs * steps_per_epoch))


@final
class Exponential(Schedule):
    """Exponential decay: `rate` to the power of the epochs so far, changing in every step.

    Example:
        >>> schedule = Exponential(rate=0.5)
        >>> [round(schedule.factor(step, steps_per_epoch=2, epochs=2), 2) for step in range(4)]
        [1.0, 0.71, 0.5, 0.35]
    """

    rate: float = Field(0.95, gt=0)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.rate ** (step / steps_per_epoch)


@final
class Polynomial(Schedule):
    """Polynomial decay: (1 - fraction of the run)^power, down to `final`; power 1 is linear.

    Example:
        >>> schedule = Polynomial(final=0.2)
        >>> [round(schedule.factor(step, steps_per_epoch=1, epochs=4), 2) for step in range(4)]
        [1.0, 0.8, 0.6, 0.4]
    """

    power: float = Field(1.0, gt=0)
    final: float = Field(0.0, ge=0, le=1)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.final + (1 - self.final) * (1 - step / num_steps) ** self.power


@final
class InverseTime(Schedule):
    """1 / (1 + decay * step): the `decay` argument of the optimizers of Keras 1 and 2, and of keras-trainer.

    Example:
        >>> schedule = InverseTime(decay=0.5)
        >>> [round(schedule.factor(step, steps_per_epoch=1, epochs=4), 2) for step in range(4)]
        [1.0, 0.67, 0.5, 0.4]
    """

    decay: float = Field(1e-6, ge=0)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return 1.0 / (1.0 + self.decay * step)


@final
class ReduceOnPlateau(Schedule):
    """Multiplies the learning rate by `rate` when `monitor` has not improved by more than `min_delta` for some epochs.

    Fields:
        monitor: a column of `history.csv`, such as "val_loss" or "val_accuracy".
        patience: how many epochs without improvement.
        mode: whether `monitor` should fall ("min") or rise ("max"); "auto" decides by its name: losses should fall,
            metrics rise.
        least: lower bound of the factor.

    Example:
        >>> schedule = ReduceOnPlateau(rate=0.5, patience=2)
        >>> history = [{"val_loss": loss} for loss in (0.9, 0.8, 0.8, 0.81)]
        >>> schedule.factor(step=4, steps_per_epoch=1, epochs=10, history=history)
        0.5
    """

    monitor: str = "val_loss"
    rate: float = Field(0.1, gt=0, lt=1)
    patience: int = Field(5, ge=1)
    min_delta: float = Field(1e-4, ge=0)
    mode: Literal["auto", "min", "max"] = "auto"
    least: float = Field(0.0, ge=0, le=1)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        sign = 1.0 if self.mode == "min" or (self.mode == "auto" and self.monitor.endswith("loss")) else -1.0
        best, waited, factor = math.inf, 0, 1.0
        for metrics in history:
            value = sign * metrics[self.monitor]
            if value < best - self.min_delta:
                best, waited = value, 0
                continue
            waited += 1
            if waited >= self.patience:
                factor, waited = max(self.least, factor * self.rate), 0
        return factor
