"""Looks at what each step tells of itself, a few steps later, so that nobody waits for the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.run.training import Divergence

__all__ = ["Diverging", "Health", "Watch"]

LAG = 4  # steps; each process looks at the same step at the same time, so that all decide alike
FIRST_STEPS = 10  # their average loss is where training began
FIRST_PATIENCE = 100.0  # they may swing; a spike among them is this many times higher
MEMORY = 0.9  # what the running average of the loss keeps in each step
# The cross-entropy of a coin toss. One wrong label among images that are known by heart makes a loss of 0.01 a hundred
# times as large, and is no reason to go back.
LEAST_USUAL_LOSS = math.log(2)


class Diverging(Exception):  # not an error yet: training goes back and tries again
    """Training has to go back.

    Attributes:
        steps: of the run, that led there.
        reason: half a sentence.
    """

    def __init__(self, steps: list[int], reason: str) -> None:
        super().__init__(reason)
        self.steps = steps
        self.reason = reason


@dataclass
class Health:
    """What is remembered of the steps so far; plain numbers, for a checkpoint.

    Attributes:
        bad_steps: those in a row, up to the last one, that were not finite or a spike.
        last_good: the last step that was fine; its update may be what went wrong, which shows in the next step.
        num_good: steps that were fine.
        first_loss: average of the first ones.
        recent_loss: running average.
    """

    bad_steps: list[int] = field(default_factory=list)
    last_good: int | None = None
    num_good: int = 0
    first_loss: float = 0.0
    recent_loss: float = 0.0

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**vars(self), "bad_steps": list(self.bad_steps)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Health:
        """What gave `state`."""
        return cls(**{**state, "bad_steps": list(state["bad_steps"])})

    def note(self, step: int, loss: float, is_bad: bool, limits: Divergence) -> None:
        """Takes one step.

        Args:
            loss: NaN where no image of the step could be read.
            is_bad: whether loss or gradients were not finite.

        Raises:
            Diverging: it was one too many.
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
        self.recent_loss = MEMORY * self.recent_loss + (1 - MEMORY) * loss if self.num_good else loss
        self.num_good += 1
        self.last_good = step

    def _is_spike(self, loss: float, limits: Divergence) -> bool:
        usual = max(min(self.recent_loss, self.first_loss), LEAST_USUAL_LOSS)
        if limits.spike_factor is None or not self.num_good:
            return False
        patience = FIRST_PATIENCE if self.num_good < FIRST_STEPS else 1.0
        return loss > limits.spike_factor * patience * usual

    def _diverging(self, reason: str) -> Diverging:
        return Diverging([*([] if self.last_good is None else [self.last_good]), *self.bad_steps], reason)


class Watch:
    """Follows the steps of a run.

    Args:
        limits: of what is borne.
        tell: is called with a step that changed nothing.
    """

    def __init__(self, limits: Divergence, tell: Callable[[int], None]) -> None:
        self.health = Health()
        self.asked_to_stop = False
        self._limits = limits
        self._tell = tell
        self._waiting: deque[tuple[int, tf.Tensor]] = deque()

    def add(self, step: int, signs: tf.Tensor) -> None:
        """Takes a step's signs, see `step.Taken`, and looks at those of some steps ago.

        Raises:
            Diverging: training has to go back.
        """
        self._waiting.append((step, signs))
        while len(self._waiting) > LAG:
            self._look()

    def ahead(self) -> Health | None:
        """What will be remembered once all that is waiting was looked at; None where training will have to go back.

        Waits for the device, and changes nothing: one process may ask at a time of its own.
        """
        health = Health.restored(self.health.state())
        try:
            for step, signs in self._waiting:
                _note(health, step, signs, self._limits)
        except Diverging:
            return None
        return health

    def catch_up(self) -> None:
        """Looks at all that is still waiting; waits for the device."""
        while self._waiting:
            self._look()

    def get_state(self) -> dict[str, Any]:
        """What will be remembered, see `ahead`, which must not be None; for a checkpoint."""
        health = self.ahead()
        assert health is not None
        return health.state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what was remembered; forgets what is waiting."""
        self.health = Health.restored(state)
        self._waiting.clear()

    def _look(self) -> None:
        step, signs = self._waiting.popleft()
        _, _, num_bad, num_stopping = np.asarray(signs)
        self.asked_to_stop |= bool(num_stopping > 0)
        if num_bad:
            self._tell(step)
        _note(self.health, step, signs, self._limits)


def _note(health: Health, step: int, signs: tf.Tensor, limits: Divergence) -> None:
    loss, weight, num_bad, _ = (float(value) for value in np.asarray(signs))
    health.note(step, loss / weight if weight > 0 else math.nan, num_bad > 0, limits)
