"""Schedules: a factor on the learning rate as a function of how far the run is.

A schedule holds no state but `ReduceOnPlateau`, whose factor follows from the epochs behind it. All begin with
`warmup_epochs` (fractions are fine) in which the factor rises evenly from near 0 to 1; the curve itself then
runs over the epochs that are left.
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
    """A factor on the learning rate."""

    warmup_epochs: float = Field(0.0, ge=0)

    def factor(self, step: int, steps_per_epoch: int, epochs: int, history: Sequence[dict[str, float]] = ()) -> float:
        """The factor for `step`, counted from 0 over the whole run.

        Args:
            history: one table of metrics (loss, val_loss, ...) for each epoch done.
        """
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        steps_left = max(1, epochs * steps_per_epoch - warmup_steps)
        return self.curve(step - warmup_steps, steps_left, steps_per_epoch, history)

    @abstractmethod
    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        """The factor after the warm-up: `step` counts from its end, 0 to num_steps - 1."""

    @property
    def moves(self) -> bool:
        """Whether the factor changes by itself; where it does not, a callback's rate is left alone."""
        return True


@final
class Constant(Schedule):
    """Always 1."""

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return 1.0

    @property
    def moves(self) -> bool:
        return self.warmup_epochs > 0


@final
class Cosine(Schedule):
    """Half a cosine from 1 to `final` at the run's end. Source: https://arxiv.org/abs/1608.03983"""

    final: float = Field(0.0, ge=0, le=1)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


@final
class StepDecay(Schedule):
    """Multiplied by `rate` every `every_epochs`."""

    every_epochs: float = Field(10.0, gt=0)
    rate: float = Field(0.1, gt=0)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.rate ** math.floor(step / (self.every_epochs * steps_per_epoch))


@final
class Exponential(Schedule):
    """`rate` to the power of the epochs done, smoothly within an epoch."""

    rate: float = Field(0.95, gt=0)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.rate ** (step / steps_per_epoch)


@final
class Polynomial(Schedule):
    """(1 - share of the run)^power, down to `final`; power 1 is a straight line."""

    power: float = Field(1.0, gt=0)
    final: float = Field(0.0, ge=0, le=1)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return self.final + (1 - self.final) * (1 - step / num_steps) ** self.power


@final
class InverseTime(Schedule):
    """1 / (1 + decay * step): what `decay` meant in the optimizers of Keras 1 and 2, and so in keras-trainer."""

    decay: float = Field(1e-6, ge=0)

    def curve(self, step: int, num_steps: int, steps_per_epoch: int, history: Sequence[dict[str, float]]) -> float:
        return 1.0 / (1.0 + self.decay * step)


@final
class ReduceOnPlateau(Schedule):
    """Multiplied by `rate` each time `monitor` has not improved by `min_delta` for `patience` epochs.

    Fields:
        mode: whether `monitor` should fall ("min") or rise ("max"); "auto" rises only for what is no loss.
        least: the factor goes no lower.
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
