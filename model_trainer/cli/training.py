"""Trains a declared run from the command line: one model, or one for each fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from model_trainer.errors import ConfigError
from model_trainer.stderr_filter import filter_stderr_until_exit

if TYPE_CHECKING:
    from model_trainer.run.run import Run

__all__ = ["check_folds", "train_declared"]


def check_folds(folds: int | None, hosts: str | None, host_index: int | None) -> None:
    """Raises ConfigError if `--folds` is given together with `--hosts`."""
    if folds is not None and (hosts is not None or host_index is not None):
        raise ConfigError(
            "--folds trains the folds one after the other in one process, which keeps their state in folds.json; "
            "--hosts is for a single model. Leave out --hosts, or train each fold as a run of its own, with train_data "
            "and val_data from Source.folds()."
        )


def train_declared(
    run: Run,
    *,
    folds: int | None,
    resume: bool,
    resume_from: str | None,
    hosts: str | None,
    host_index: int | None,
) -> bool:
    """Starts TensorFlow and trains `run`.

    Args:
        folds: number of folds; None trains a single model.
        resume, resume_from, hosts, host_index: as in `train`.

    Returns:
        Whether a signal stopped the training.
    """
    typer.echo("Starting TensorFlow ...", err=True)
    filter_stderr_until_exit()
    from model_trainer.api import train, train_folds

    if folds is not None:
        return bool(train_folds(run, folds, resume=resume, resume_from=resume_from).stopped)
    return bool(train(run, resume, resume_from, hosts=hosts, host_index=host_index).stopped)
