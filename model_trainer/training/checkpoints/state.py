"""Captures the state of the training loop as a checkpoint, and restores it.

A checkpoint has every number on which the rest of the training depends. Order, augmentation and dropout are functions
of the step, and a schedule of the step and the history, so they have no state.
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

ARRAYS_ONLY = ("network", "optimizer", "average", "batch_norm", "totals")  # their states are dicts of arrays


def stateful_parts(loop: Loop) -> dict[str, Stateful]:
    """Returns all stateful parts except callbacks, by name in a checkpoint, in the order in which they are restored."""
    network, average = loop.prepared.step_setup.network, loop.weight_average
    fractions = network.moving_statistics.fractions

    def missing_average(index: int) -> np.ndarray | None:
        if average is None or not average.averages_statistics(index):
            return None
        return np.array(average.averaged[index])  # from the network, which is restored first

    return {
        "unfrozen": _Unfrozen(loop),  # first, because it creates a new optimizer
        "network": Variables("network", lambda: [(var.path, var) for var in loop.model.weights]),
        "optimizer": Variables("optimizer", lambda: [(var.name, var) for var in loop.phase.optimizer.variables]),
        "average": Variables(
            "average",
            lambda: [] if average is None else [(var.name, var) for var in average.variables],
            missing_average,
        ),
        "batch_norm": Variables(
            "batch_norm", lambda: [(fractions.name, fractions)], lambda _: np.ones(fractions.shape, np.float32)
        ),
        "stop_training": Attribute(loop.model, "stop_training", bool, bool),
        "history": Attribute(loop, "history", _copy_rows, _copy_rows),
        "best": loop.best,
        "thresholds": Attribute(loop, "thresholds", decode=lambda state: None if state is None else tuple(state)),
        "best_thresholds": Attribute(
            loop,
            "best_thresholds",
            lambda value: {str(index): thresholds for index, thresholds in value.items()},
            lambda state: {int(index): tuple(thresholds) for index, thresholds in state.items()},
        ),
        "epoch_seconds": _EpochSeconds(loop),
        "bad_images": loop.prepared.bad_images,
        "health": _Health(loop),
        "skipped": Attribute(loop, "skipped", sorted, set),
        "rollbacks": Attribute(loop, "rollbacks"),
        "rate_cut": Attribute(loop, "rate_cut"),
        "divergence": _Limits(loop),
    }


def capture(loop: Loop, position: EpochPosition, *, finished: bool = False) -> Checkpoint | None:
    """Returns a copy of the training state at `position`, which later steps do not change.

    None if the last steps were so bad that training will roll back.

    Args:
        finished: whether training is complete.
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
    for name, stateful in (stateful_parts(loop) | {"totals": position.totals}).items():
        if name in ARRAYS_ONLY:
            arrays |= {f"{name}/{key}": array for key, array in stateful.get_state().items()}
        else:
            state[name] = pack(stateful.get_state(), name, arrays)
    state["callbacks"] = [
        None if (callback_state := state_of(callback)) is None else pack(callback_state, f"callbacks/{index}", arrays)
        for index, callback in enumerate(loop.prepared.callbacks)
    ]
    return Checkpoint(position.epoch, position.position, state, arrays)


def restore(loop: Loop, checkpoint: Checkpoint) -> EpochPosition:
    """Restores the loop from a checkpoint, except the callbacks.

    Returns:
        The position from which training continues.

    Raises:
        ModelFileError: the checkpoint belongs to another network or optimizer.
    """
    state = {"best_thresholds": {}, **checkpoint.state}  # older versions did not store them
    totals = MetricAccumulator(loop.prepared.run.task.additive_metrics)
    for name, stateful in (stateful_parts(loop) | {"totals": totals}).items():
        if name in ARRAYS_ONLY:
            prefix = f"{name}/"
            arrays = checkpoint.arrays.items()
            stateful.set_state({key.removeprefix(prefix): array for key, array in arrays if key.startswith(prefix)})
        elif name in state:
            stateful.set_state(unpack(state[name], checkpoint.arrays))
    finalize(loop.model.layers)
    loop.scheduled_rate = None
    return EpochPosition(checkpoint.epoch, checkpoint.position, totals)


def restore_callbacks(loop: Loop, checkpoint: Checkpoint, is_resumed: bool = False) -> None:
    """Restores the state of callbacks; called after `on_train_begin`, in which many reset themselves.

    Args:
        is_resumed: whether the callbacks are new objects; those without a state then start at the current epoch.
    """
    for callback, state in zip(loop.prepared.callbacks, checkpoint.state["callbacks"], strict=True):
        if load_state(callback, None if state is None else unpack(state, checkpoint.arrays)) or not is_resumed:
            continue
        if checkpoint.position:
            callback.on_epoch_begin(checkpoint.epoch)
        logging.warning(
            "%s is reset: without get_state() and set_state(state) a callback cannot be resumed exactly.",
            name_of(callback),
        )


def _copy_rows(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [dict(row) for row in rows]


class _Unfrozen:
    """Whether the frozen layers have been unfrozen."""

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
    """The state of the watch, including steps that it has not received yet."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> dict[str, Any]:
        health = self._loop.health_ahead()
        assert health is not None  # otherwise `capture` has returned
        return health.state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._loop.watch.health = Health.restored(state)
        self._loop.observers.forget()


class _EpochSeconds:
    """The duration of the current epoch so far."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> float:
        return self._loop.epoch_seconds()

    def set_state(self, state: float) -> None:
        self._loop.resumed_seconds = float(state)


class _Limits:
    """The limits for which rollbacks were counted; with new limits the count starts at 0."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_state(self) -> dict[str, Any]:
        return self._loop.prepared.run.training.divergence.to_dict()

    def set_state(self, state: dict[str, Any]) -> None:
        if state != self.get_state():
            self._loop.rollbacks = 0
