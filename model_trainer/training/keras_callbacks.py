"""What Keras' own callbacks need beside a loop that is not `fit`: directions, batch hooks, and a state that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import keras
from absl import logging

from model_trainer.errors import ConfigError
from model_trainer.run.run import Run

__all__ = ["check_callbacks", "decide_directions", "has_hook", "load_state", "restored_epoch", "state_of"]

# What they count, by class; a callback that is not here and has no get_state() begins anew when a run is resumed.
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
_WITH_A_MONITOR = (
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
    """Raises ConfigError where one of them cannot work in this run; says why, and what to do instead.

    Args:
        callbacks: in the order in which `run` declares them.
        optimizer: of the run.
        is_resumed: whether the run goes on from a checkpoint; then it is only told of.
    """
    for number, callback in enumerate(callbacks):
        problem = _problem_of(callback, run, optimizer)
        if problem and not is_resumed:
            raise ConfigError(problem, f"callbacks.{number}")
        if problem:  # an older version took it
            logging.warning("callbacks.%d %s", number, problem)


def _problem_of(callback: keras.callbacks.Callback, run: Run, optimizer: keras.optimizers.Optimizer) -> str:
    name = type(callback).__name__
    schedule = run.training.schedule
    if isinstance(callback, (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)):
        if schedule.moves:
            return (
                f"({name}) sets the learning rate, and so does training.schedule, {type(schedule).__name__}, before "
                "each step. Leave the rate to the callback, --set training.schedule=Constant, or leave it out."
            )
    elif isinstance(callback, keras.callbacks.BackupAndRestore):
        return (
            f"({name}) can only lead `fit` back to where it was. Leave it out: a run saves checkpoints by itself, and "
            "--resume goes on from the newest one, to the bit."
        )
    elif isinstance(callback, keras.callbacks.OrbaxCheckpoint):
        return (
            f"({name}) would save the copy that trains, which only Model Trainer can load. Leave it out, or take "
            "keras.callbacks.ModelCheckpoint; what --resume needs a run saves by itself."
        )
    elif isinstance(callback, keras.callbacks.SwapEMAWeights):
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if not getattr(inner, "use_ema", False):
            return (
                f"({name}) swaps averages that only an optimizer of Keras with use_ema=True keeps. Leave it out and "
                "say --set training.ema_decay=0.999, which validates and saves averaged weights."
            )
    elif isinstance(callback, keras.callbacks.TensorBoard) and find_spec("tensorboard") is None:
        return (
            f"({name}) needs a package that is not installed: .venv/bin/pip install tensorboard. Or leave it out: each "
            "run writes TensorBoard's events into logs/ by itself."
        )
    return ""


def decide_directions(callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Says to callbacks with mode="auto" whether their monitor should fall or rise; all metrics rise but losses.

    Keras asks the compiled metrics of the model, which a model that trains here does not have.
    """
    for callback in callbacks:
        if isinstance(callback, _WITH_A_MONITOR) and callback.mode == "auto":
            callback.mode = "min" if callback.monitor.endswith("loss") else "max"


def has_hook(callbacks: Iterable[keras.callbacks.Callback], *names: str) -> bool:
    """Whether any has one of these methods for itself, also as an attribute, as `LambdaCallback` has them."""
    return any(not getattr(getattr(each, name), "_is_default", False) for each in callbacks for name in names)


def restored_epoch(callback: keras.callbacks.Callback) -> int | None:
    """The epoch, counted from 0, whose weights a callback would give back now; None where it would not."""
    if not isinstance(callback, keras.callbacks.EarlyStopping) or not callback.restore_best_weights:
        return None
    return None if callback.best_weights is None else int(callback.best_epoch)


def state_of(callback: keras.callbacks.Callback) -> Any:
    """What a checkpoint carries of a callback: what its `get_state()` gives, or what is known of Keras' own.

    None where it has neither.
    """
    get_state = getattr(callback, "get_state", None)
    if get_state is not None:
        return get_state()
    names = _state_names(callback)
    return None if names is None else {name: getattr(callback, name, None) for name in names}


def load_state(callback: keras.callbacks.Callback, state: Any) -> bool:
    """Gives a callback its state back; whether it could be."""
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
    # Of exactly this class: a subclass of the user's may count more.
    return _STATES.get(type(callback))
