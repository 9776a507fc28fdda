"""Detects divergence: observes in each step the loss, and whether loss and gradients are finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model_trainer.run.observers import ObservedStep
from model_trainer.run.training import Divergence

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["DivergenceDetector", "Diverging", "Health"]

FIRST_STEPS = 10  # their average is the initial loss
FIRST_TOLERANCE = 100.0  # the loss of the first steps varies; the limit for spikes is this many times higher for them
DECAY = 0.9  # of the moving average of the loss
# The cross-entropy of a coin toss. A single wrong label among images that the network has memorized makes a loss of
# 0.01 a hundred times larger, and is not a reason to roll back.
MIN_TYPICAL_LOSS = math.log(2)


class Diverging(Exception):  # not an error yet: training rolls back and tries again
    """Training must roll back.

    Attributes:
        steps: the steps of the run that led to it.
        reason: a clause for messages.
    """

    def __init__(self, steps: list[int], reason: str) -> None:
        super().__init__(reason)
        self.steps = steps
        self.reason = reason


@dataclass
class Health:
    """Statistics of the steps so far, as plain numbers for a checkpoint.

    Attributes:
        bad_steps: the latest steps in a row that were not finite or a spike.
        last_good: the last good step; its update may be the cause of the bad step after it.
        num_good: number of good steps.
        first_loss: average loss of the first good steps.
        recent_loss: moving average of the loss.
    """

    bad_steps: list[int] = field(default_factory=list)
    last_good: int | None = None
    num_good: int = 0
    first_loss: float = 0.0
    recent_loss: float = 0.0

    def state(self) -> dict[str, Any]:
        """Returns the statistics for a checkpoint."""
        return {**vars(self), "bad_steps": list(self.bad_steps)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Health:
        """Returns the `Health` whose `state()` was `state`."""
        return cls(**{**state, "bad_steps": list(state["bad_steps"])})

    def note(self, step: int, loss: float, is_bad: bool, limits: Divergence) -> None:
        """Records a step.

        Args:
            step: number of the step in the run.
            loss: NaN if no image of the step could be read.
            is_bad: whether loss or gradients were not finite.
            limits: which steps are tolerated.

        Raises:
            Diverging: there are too many bad steps in a row.
        """
        if is_bad or self._is_spike(loss, limits):
            self.bad_steps.append(step)
            if len(self.bad_steps) >= limits.bad_steps:
                steps = "a step" if limits.bad_steps == 1 else f"{limits.bad_steps} steps in a row"
                if is_bad:
                    raise self._diverging(f"loss or gradients were not finite in {steps}")
                raise self._diverging(f"the loss rose from {self.recent_loss:.4g} to {loss:.4g} in {steps}")
            return
        self.bad_steps = []
        if math.isnan(loss):
            return
        if self.num_good < FIRST_STEPS:
            self.first_loss += (loss - self.first_loss) / (self.num_good + 1)
        self.recent_loss = DECAY * self.recent_loss + (1 - DECAY) * loss if self.num_good else loss
        self.num_good += 1
        self.last_good = step

    def _is_spike(self, loss: float, limits: Divergence) -> bool:
        typical_loss = max(min(self.recent_loss, self.first_loss), MIN_TYPICAL_LOSS)
        if limits.spike_factor is None or not self.num_good:
            return False
        tolerance = FIRST_TOLERANCE if self.num_good < FIRST_STEPS else 1.0
        return loss > limits.spike_factor * tolerance * typical_loss

    def _diverging(self, reason: str) -> Diverging:
        return Diverging([*([] if self.last_good is None else [self.last_good]), *self.bad_steps], reason)


class DivergenceDetector:
    """Observes every step of a run; see `observers.StepObserver`.

    Args:
        limits: which steps are tolerated.
        report_bad_step: called with the number of each step that was not finite.
    """

    every = 1
    uses = ()

    def __init__(self, limits: Divergence, report_bad_step: Callable[[int], None]) -> None:
        self.health = Health()
        self.asked_to_stop = False
        self._limits = limits
        self._report_bad_step = report_bad_step

    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """Returns the scalars of the step."""
        return dict(step.scalars)

    def receive(self, step: int, values: dict[str, float]) -> None:
        """Checks the scalars of a step.

        Raises:
            Diverging: training must roll back.
        """
        self.asked_to_stop |= values["num_stopping"] > 0
        if values["num_broken"]:
            self._report_bad_step(step)
        _note(self.health, step, values, self._limits)

    def ahead(self, pending: Iterable[tuple[int, dict[str, float]]]) -> Health | None:
        """Returns the health after the `pending` steps; None if training will have to roll back.

        It has no effect on the detector, so that a single process may call it at any time.
        """
        health = Health.restored(self.health.state())
        try:
            for step, values in pending:
                _note(health, step, values, self._limits)
        except Diverging:
            return None
        return health


def _note(health: Health, step: int, values: Mapping[str, float], limits: Divergence) -> None:
    count = values["num_examples"]
    loss = values["loss_sum"] / count if count > 0 else math.nan
    health.note(step, loss, values["num_broken"] > 0, limits)
