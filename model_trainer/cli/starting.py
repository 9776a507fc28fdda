"""What the commands do before TensorFlow starts, which takes many seconds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest
from model_trainer.storage import files

if TYPE_CHECKING:
    from model_trainer.run.run import Run

__all__ = ["announce_tensorflow", "check_weights"]


def announce_tensorflow() -> None:
    """Announces the slow start of TensorFlow on a terminal; prints nothing if standard error is a file or a pipe."""
    if sys.stderr.isatty():
        typer.echo("Starting TensorFlow ...", err=True)


def check_weights(run: Run) -> None:
    """Raises ConfigError if `run.weights` names a local file that does not exist."""
    weights = run.weights
    if weights is None or weights in ("auto", "imagenet") or "://" in weights or files.exists(weights):
        return
    raise ConfigError(
        f"should be imagenet, none, auto or a model file; there is no file {weights}."
        f"{nearest(weights, ('imagenet', 'none', 'auto'))}",
        "weights",
    )
