"""Whether training goes wrong: an observer of the loss and of what is not finite in each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model_trainer.run.observers import ObservedStep
from model_trainer.run.training import Divergence

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Diverging", "Health", "Watch"]

FIRST_STEPS = 10  # their average loss is where training began
FIRST_PATIENCE = 100.0  # they may swing; a spike among them is this many times higher
MEMORY = 0.9  # what the running average of the loss keeps in each step
# The cross-entropy of a coin toss. One wrong label among images that are known by heart makes a loss of 0.01 a hundred
# times as large, and is no reason to go back.
MIN_TYPICAL_LOSS = math.log(2)


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
        usual = max(min(self.recent_loss, self.first_loss), MIN_TYPICAL_LOSS)
        if limits.spike_factor is None or not self.num_good:
            return False
        patience = FIRST_PATIENCE if self.num_good < FIRST_STEPS else 1.0
        return loss > limits.spike_factor * patience * usual

    def _diverging(self, reason: str) -> Diverging:
        return Diverging([*([] if self.last_good is None else [self.last_good]), *self.bad_steps], reason)


class Watch:
    """Follows all steps of a run; see `observers.StepObserver`.

    Args:
        limits: of what is borne.
        tell: is called with a step that changed nothing.
    """

    every = 1
    uses = ()

    def __init__(self, limits: Divergence, tell: Callable[[int], None]) -> None:
        self.health = Health()
        self.asked_to_stop = False
        self._limits = limits
        self._tell = tell

    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """What every step says of itself."""
        return dict(step.scalars)

    def receive(self, step: int, values: dict[str, float]) -> None:
        """Looks at a step.

        Raises:
            Diverging: training has to go back.
        """
        self.asked_to_stop |= values["num_stopping"] > 0
        if values["num_broken"]:
            self._tell(step)
        _note(self.health, step, values, self._limits)

    def ahead(self, waiting: Iterable[tuple[int, dict[str, float]]]) -> Health | None:
        """What will be remembered after the steps that are `waiting`; None where training will have to go back.

        Changes nothing: one process may ask at a time of its own.
        """
        health = Health.restored(self.health.state())
        try:
            for step, values in waiting:
                _note(health, step, values, self._limits)
        except Diverging:
            return None
        return health


def _note(health: Health, step: int, values: Mapping[str, float], limits: Divergence) -> None:
    count = values["num_examples"]
    loss = values["loss_sum"] / count if count > 0 else math.nan
    health.note(step, loss, values["num_broken"] > 0, limits)
