"""From the running loop to a checkpoint, and back: every number on which the rest of a training depends.

Order, augmentation and dropout are functions of the step, and a schedule of the step and the history, so of them
nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from model_trainer.dotted import name_of
from model_trainer.network.graph import finalize
from model_trainer.training.checkpoints.stateful import Attribute, Stateful, Variables
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.checkpoints.values import pack, unpack
from model_trainer.training.keras_callbacks import load_state, state_of
from model_trainer.training.loop import EpochPosition
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.watch import Health

if TYPE_CHECKING:
    from model_trainer.training.loop import Loop

__all__ = ["capture", "restore", "restore_callbacks"]

ARRAYS_ONLY = ("network", "optimizer", "average", "batch_norm", "totals")  # arrays alone, under their names


def stateful_parts(loop: Loop) -> dict[str, Stateful]:
    """All parts by their names in a checkpoint, in the order in which they are restored. Callbacks come later."""
    network, average = loop.prepared.parts.network, loop.average
    fractions = network.averages.fractions

    def average_of_older_version(number: int) -> np.ndarray | None:
        if average is None or not average.is_of_statistics(number):
            return None
        return np.array(average.averaged[number])  # of the network, which is restored before

    return {
        "unfrozen": _Unfrozen(loop),  # another optimizer begins with it
        "network": Variables("network", lambda: [(each.path, each) for each in loop.model.weights]),
        "optimizer": Variables("optimizer", lambda: [(each.name, each) for each in loop.phase.optimizer.variables]),
        "average": Variables(
            "average",
            lambda: [] if average is None else [(each.name, each) for each in average.variables],
            average_of_older_version,
        ),
        "batch_norm": Variables(
            "batch_norm", lambda: [(fractions.name, fractions)], lambda _: np.ones(fractions.shape, np.float32)
        ),
        "stop_training": Attribute(loop.model, "stop_training", bool, bool),
        "history": Attribute(loop, "history", _copied_rows, _copied_rows),
        "best": loop.best,
        "thresholds": Attribute(loop, "thresholds", restored=lambda state: None if state is None else tuple(state)),
        "best_thresholds": Attribute(
            loop,
            "best_thresholds",
            lambda value: {str(number): each for number, each in value.items()},
            lambda state: {int(number): tuple(each) for number, each in state.items()},
        ),
        "epoch_seconds": _EpochSeconds(loop),
        "bad_images": loop.prepared.bad_images,
        "health": _Health(loop),
        "skipped": Attribute(loop, "skipped", sorted, set),
        "rollbacks": Attribute(loop, "rollbacks"),
        "rate_cut": Attribute(loop, "rate_cut"),
        "divergence": _Limits(loop),
    }


def capture(loop: Loop, place: EpochPosition, *, finished: bool = False) -> Checkpoint | None:
    """The training at `place`; nothing in it changes when training goes on.

    None where the last steps went wrong, so that there is nothing to be kept.

    Args:
        finished: whether nothing is left to do.
    """
    if loop.health_ahead() is None:
        return None
    loop.observers.log_all()
    arrays: dict[str, np.ndarray] = {}
    state: dict[str, Any] = {
        "format": 1,
        "finished": finished,
        "steps_per_epoch": loop.steps_per_epoch,
        "batch_size": loop.prepared.run.training.batch_size,
    }
    for name, part in (stateful_parts(loop) | {"totals": place.totals}).items():
        if name in ARRAYS_ONLY:
            arrays |= {f"{name}/{key}": array for key, array in part.get_state().items()}
        else:
            state[name] = pack(part.get_state(), name, arrays)
    state["callbacks"] = [
        None if (of := state_of(callback)) is None else pack(of, f"callbacks/{number}", arrays)
        for number, callback in enumerate(loop.prepared.callbacks)
    ]
    return Checkpoint(place.epoch, place.position, state, arrays)


def restore(loop: Loop, checkpoint: Checkpoint) -> EpochPosition:
    """Puts the loop where the checkpoint was taken, all but the callbacks.

    Raises:
        ModelFileError: it is of another network or optimizer.
    """
    state = {"best_thresholds": {}, **checkpoint.state}  # older versions kept none
    totals = MetricAccumulator(loop.prepared.run.task.additive_metrics)
    for name, part in (stateful_parts(loop) | {"totals": totals}).items():
        if name in ARRAYS_ONLY:
            prefix = f"{name}/"
            arrays = checkpoint.arrays.items()
            part.set_state({each.removeprefix(prefix): array for each, array in arrays if each.startswith(prefix)})
        elif name in state:
            part.set_state(unpack(state[name], checkpoint.arrays))
    finalize(loop.model.layers)
    loop.scheduled_rate = None
    return EpochPosition(checkpoint.epoch, checkpoint.position, totals)


def restore_callbacks(loop: Loop, checkpoint: Checkpoint, is_resumed: bool = False) -> None:
    """Gives callbacks their state back, after `on_train_begin`, where many reset themselves.

    Args:
        is_resumed: whether they are new; those without a state then begin with the running epoch.
    """
    for callback, state in zip(loop.prepared.callbacks, checkpoint.state["callbacks"], strict=True):
        if load_state(callback, None if state is None else unpack(state, checkpoint.arrays)) or not is_resumed:
            continue
        if checkpoint.position:
            callback.on_epoch_begin(checkpoint.epoch)
        logging.warning(
            "%s starts again: it has no get_state() and set_state(state), by which a callback goes on exactly.",
            name_of(callback),
        )


def _copied_rows(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [dict(row) for row in rows]


class _Unfrozen:
    """Whether the frozen layers train by now."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> bool:
        return self._loop.unfrozen

    def set_state(self, state: bool) -> None:
        if state and not self._loop.unfrozen:
            self._loop.unfreeze()
        elif self._loop.unfrozen and not state:
            self._loop.freeze_again()


class _Health:
    """What the watch remembers; also of steps at which it will look later."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> dict[str, Any]:
        health = self._loop.health_ahead()
        assert health is not None  # or `capture` would have given up
        return health.state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._loop.watch.health = Health.restored(state)
        self._loop.observers.forget()


class _EpochSeconds:
    """How long the running epoch takes by now."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> float:
        return self._loop.epoch_seconds()

    def set_state(self, state: float) -> None:
        self._loop.resumed_seconds = float(state)


class _Limits:
    """The limits by which rollbacks were counted; with others they count from here."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> dict[str, Any]:
        return self._loop.prepared.run.training.divergence.to_dict()

    def set_state(self, state: dict[str, Any]) -> None:
        if state != self.get_state():
            self._loop.rollbacks = 0
