"""Support for Keras' own callbacks outside of `fit`: monitor directions, batch hooks, and state for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

import keras
from absl import logging

from model_trainer.errors import ConfigError
from model_trainer.run.run import Run

__all__ = [
    "announce_failure",
    "announce_run_end",
    "check_callbacks",
    "decide_directions",
    "has_hook",
    "load_state",
    "restored_epoch",
    "set_run",
    "state_of",
    "with_run_end",
]

# State attributes by class; any other callback without get_state() is reset when a run is resumed.
_STATES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
        "_current_epoch",
    ),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}
_WITH_MONITOR = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.ModelCheckpoint,
)
_STATELESS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.TerminateOnNaN,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.ProgbarLogger,
)


def check_callbacks(
    callbacks: Iterable[keras.callbacks.Callback], run: Run, optimizer: keras.optimizers.Optimizer, is_resumed: bool
) -> None:
    """Raises ConfigError if a callback cannot work in this run; the message has the reason and the cure.

    Args:
        callbacks: in the order in which `run` declares them.
        optimizer: of the run.
        is_resumed: whether the run continues from a checkpoint; then there is only a warning.
    """
    for index, callback in enumerate(callbacks):
        problem = _find_problem(callback, run, optimizer)
        if problem and not is_resumed:
            raise ConfigError(problem, f"callbacks.{index}")
        if problem:  # an older version accepted it
            logging.warning("callbacks.%d %s", index, problem)


def _find_problem(callback: keras.callbacks.Callback, run: Run, optimizer: keras.optimizers.Optimizer) -> str:
    name = type(callback).__name__
    schedule = run.training.schedule
    if isinstance(callback, (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)):
        if schedule.moves:
            return (
                f"({name}) sets the learning rate, and so does training.schedule, {type(schedule).__name__}, before "
                "each step. Use --set training.schedule=Constant to leave the rate to the callback, or remove the "
                "callback."
            )
    elif isinstance(callback, keras.callbacks.BackupAndRestore):
        return (
            f"({name}) only works with `fit`. Remove it: a run saves checkpoints by itself, and --resume continues "
            "exactly from the newest one."
        )
    elif isinstance(callback, keras.callbacks.OrbaxCheckpoint):
        return (
            f"({name}) would save the training copy of the network, which only Model Trainer can load. Remove it, or "
            "use keras.callbacks.ModelCheckpoint; a run saves by itself what --resume needs."
        )
    elif isinstance(callback, keras.callbacks.SwapEMAWeights):
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if not getattr(inner, "use_ema", False):
            return (
                f"({name}) needs averages that only a Keras optimizer with use_ema=True has. Remove it and use "
                "--set training.ema_decay=0.999, which validates and saves averaged weights."
            )
    elif isinstance(callback, keras.callbacks.TensorBoard) and find_spec("tensorboard") is None:
        return (
            f"({name}) needs a package that is not installed: .venv/bin/pip install tensorboard. Or remove it: each "
            "run writes TensorBoard events to logs/ by itself."
        )
    return ""


def decide_directions(callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Replaces mode="auto" of callbacks with "min" if they monitor a loss, otherwise with "max".

    Keras decides it by the model's compiled metrics, which a model that trains here does not have.
    """
    for callback in callbacks:
        if isinstance(callback, _WITH_MONITOR) and callback.mode == "auto":
            callback.mode = "min" if callback.monitor.endswith("loss") else "max"


def has_hook(callbacks: Iterable[keras.callbacks.Callback], *names: str) -> bool:
    """Whether any callback overrides one of these methods, also with an attribute, as `LambdaCallback` does."""
    return any(not getattr(getattr(callback, name), "_is_default", False) for callback in callbacks for name in names)


def set_run(callbacks: Iterable[keras.callbacks.Callback], run: Run, folder: PurePath) -> None:
    """Calls `set_run(run, folder)` of the callbacks that have it, such as trackers; Keras' hooks know neither.

    Args:
        folder: the output folder.
    """
    for callback in callbacks:
        if callable(getattr(callback, "set_run", None)):
            callback.set_run(run, folder)


def announce_failure(callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Calls `on_train_failed()` of the callbacks that have it: training ends with an error.

    An exception in it is only logged, so that it neither hides that error nor keeps it from the other callbacks.
    """
    _call_each(callbacks, "on_train_failed")


def with_run_end(callbacks: Iterable[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that `announce_run_end` calls; the others need not be kept until then."""
    return [callback for callback in callbacks if callable(getattr(callback, "on_run_end", None))]


def announce_run_end(
    callbacks: Iterable[keras.callbacks.Callback], folder: PurePath, metrics: Mapping[str, Any]
) -> None:
    """Calls `on_run_end(folder, metrics)` of the callbacks that have it; an exception in it is only logged.

    Args:
        folder: the output folder, to which every file has been written.
        metrics: of the evaluation, as in `evaluation.json`; empty without an evaluation.
    """
    _call_each(callbacks, "on_run_end", folder, metrics)


def _call_each(callbacks: Iterable[keras.callbacks.Callback], name: str, *arguments: Any) -> None:
    for callback in callbacks:
        hook = getattr(callback, name, None)
        if not callable(hook):
            continue
        try:
            hook(*arguments)
        except Exception as error:  # noqa: BLE001  # the user's code raises anything
            logging.warning(
                "%s of the callback %s raised %s: %s", name, type(callback).__name__, type(error).__name__, error
            )


def restored_epoch(callback: keras.callbacks.Callback) -> int | None:
    """Returns the epoch, counted from 0, whose weights a callback would restore now; None if it would not."""
    if not isinstance(callback, keras.callbacks.EarlyStopping) or not callback.restore_best_weights:
        return None
    return None if callback.best_weights is None else int(callback.best_epoch)


def state_of(callback: keras.callbacks.Callback) -> Any:
    """Returns a callback's state for a checkpoint: from its `get_state()`, or the state attributes of Keras' own.

    None if it has neither.
    """
    get_state = getattr(callback, "get_state", None)
    if get_state is not None:
        return get_state()
    names = _state_names(callback)
    return None if names is None else {name: getattr(callback, name, None) for name in names}


def load_state(callback: keras.callbacks.Callback, state: Any) -> bool:
    """Restores a callback's state; returns whether that was possible."""
    set_state = getattr(callback, "set_state", None)
    if state is not None and set_state is not None:
        set_state(state)
        return True
    names = _state_names(callback)
    if names is not None and isinstance(state, Mapping):
        for name in names:
            setattr(callback, name, state.get(name))
        return True
    return type(callback) in _STATELESS or set_state is not None


def _state_names(callback: keras.callbacks.Callback) -> tuple[str, ...] | None:
    # By the exact class: a user's subclass may have more state.
    return _STATES.get(type(callback))
