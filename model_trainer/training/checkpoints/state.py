"""From the running loop to a checkpoint, and back: every number on which the rest of a training depends.

Order, augmentation and dropout are functions of the step, and a schedule of the step and the history, so of them
nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from absl import logging

from model_trainer.dotted import name_of
from model_trainer.errors import ModelFileError
from model_trainer.models.graph import finalize
from model_trainer.training.callbacks.keras_callbacks import load_state, state_of
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.checkpoints.values import pack, unpack
from model_trainer.training.loop import Place
from model_trainer.training.totals import Totals
from model_trainer.training.watch import Health

if TYPE_CHECKING:
    from model_trainer.training.loop import Loop

__all__ = ["capture", "restore", "restore_callbacks"]


def capture(loop: Loop, place: Place, *, finished: bool = False) -> Checkpoint | None:
    """The training at `place`; nothing in it changes when training goes on.

    None where the last steps went wrong, so that there is nothing to be kept.

    Args:
        finished: whether nothing is left to do.
    """
    health = loop.watch.ahead()
    if health is None:
        return None
    arrays = {name: np.array(variable) for name, variable in _variables(loop)}
    arrays |= {f"totals/{name}": value for name, value in place.totals.sums().items()}
    state: dict[str, Any] = {
        "format": 1,
        "finished": finished,
        "steps_per_epoch": loop.steps_per_epoch,
        "batch_size": loop.prepared.run.training.batch_size,
        "unfrozen": loop.unfrozen,
        "history": [dict(row) for row in loop.history],
        "best": loop.best.state(),
        "thresholds": loop.thresholds,
        "best_thresholds": {str(number): each for number, each in loop.best_thresholds.items()},
        "epoch_seconds": loop.epoch_seconds(),
        "stop_training": bool(loop.model.stop_training),
        "bad_images": loop.prepared.bad_images.reasons,
        "health": health.state(),
        "skipped": sorted(loop.skipped),
        "rollbacks": loop.rollbacks,
        "rate_cut": loop.rate_cut,
        "divergence": loop.prepared.run.training.divergence.to_dict(),
        "callbacks": [_callback_state(number, each, arrays) for number, each in enumerate(loop.prepared.callbacks)],
    }
    return Checkpoint(place.epoch, place.position, state, arrays)


def restore(loop: Loop, checkpoint: Checkpoint) -> Place:
    """Puts the loop where the checkpoint was taken, all but the callbacks.

    Raises:
        ModelFileError: it is of another network or optimizer.
    """
    state = checkpoint.state
    if state["unfrozen"] and not loop.unfrozen:
        loop.unfreeze()
    elif loop.unfrozen and not state["unfrozen"]:
        loop.freeze_again()
    # By number: names of Keras' own making depend on what else was built in the process.
    by_number = {_numbered(name): array for name, array in checkpoint.arrays.items()}
    for name, variable in _variables(loop):
        array = by_number.get(_numbered(name))
        if array is None:
            array = _of_older_version(loop, name)
        if array is None or not _is_same_shape(array.shape, tuple(variable.shape)):
            found = "is missing" if array is None else f"has the shape {array.shape}, not {tuple(variable.shape)}"
            raise ModelFileError(f"The checkpoint does not fit this network and optimizer: {name} {found}.")
        variable.assign(array.reshape(variable.shape))
    finalize(loop.model.layers)
    loop.scheduled_rate = None
    loop.model.stop_training = bool(state["stop_training"])
    loop.history[:] = [dict(row) for row in state["history"]]
    loop.best.restore(state["best"])
    loop.thresholds = None if state["thresholds"] is None else tuple(state["thresholds"])
    best_thresholds = state.get("best_thresholds", {})
    loop.best_thresholds = {int(number): tuple(each) for number, each in best_thresholds.items()}
    loop.resumed_seconds = float(state["epoch_seconds"])
    loop.prepared.bad_images.restore(state["bad_images"])
    loop.watch.restart(Health.restored(state["health"]))
    loop.skipped, loop.rollbacks, loop.rate_cut = set(state["skipped"]), state["rollbacks"], state["rate_cut"]
    if state["divergence"] != loop.prepared.run.training.divergence.to_dict():
        loop.rollbacks = 0  # resumed with other limits, which count from here
    totals = Totals(loop.prepared.run.task.counted_metrics)
    prefix = "totals/"
    totals.restore({name.removeprefix(prefix): a for name, a in checkpoint.arrays.items() if name.startswith(prefix)})
    return Place(checkpoint.epoch, checkpoint.position, totals)


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


def _variables(loop: Loop) -> list[tuple[str, keras.Variable]]:
    """Every variable of network and optimizer, by a name that says what it is and a number that makes it unique."""
    network = loop.model.weights
    optimizer = loop.phase.optimizer.variables
    named = [(f"network/{number}/{each.path}", each) for number, each in enumerate(network)]
    named += [(f"optimizer/{number}/{each.name}", each) for number, each in enumerate(optimizer)]
    averages = loop.average.variables if loop.average is not None else []
    named += [(f"average/{number}/{each.name}", each) for number, each in enumerate(averages)]
    fractions = loop.prepared.parts.network.averages.fractions
    return [*named, (f"batch_norm/0/{fractions.name}", fractions)]


def _of_older_version(loop: Loop, name: str) -> np.ndarray | None:
    """What a variable begins as, of which the checkpoint of an older version has nothing; None of all others."""
    kind, number = name.split("/")[:2]
    if kind == "batch_norm":
        return np.ones(loop.prepared.parts.network.averages.fractions.shape, np.float32)
    if kind == "average" and loop.average is not None and loop.average.is_of_statistics(int(number)):
        return np.array(loop.average.averaged[int(number)])  # of the network, which is restored before
    return None


def _is_same_shape(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Also for a factor of each channel in ConvNeXt, whose own layer holds a row."""
    return stored == wanted or (len(stored) == 1 and wanted == (1, 1, *stored, 1))


def _numbered(name: str) -> str:
    """Such as "network/7" of "network/7/conv2/kernel"."""
    return "/".join(name.split("/")[:2])


def _callback_state(number: int, callback: keras.callbacks.Callback, arrays: dict[str, np.ndarray]) -> Any:
    state = state_of(callback)
    return None if state is None else pack(state, f"callbacks/{number}", arrays)
