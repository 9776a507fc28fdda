"""`model-trainer train`."""

from __future__ import annotations

import typer

from model_trainer.cli.errors import STOPPED_EARLY
from model_trainer.cli.overrides import load_run, with_overrides
from model_trainer.cli.starting import check_weights
from model_trainer.cli.train_options import (
    Folds,
    HostIndex,
    HostList,
    Overrides,
    Restarts,
    Resume,
    ResumeFrom,
    supervised,
)
from model_trainer.cli.training import check_folds, train_declared

__all__ = ["train"]


def train(
    run: str = typer.Argument(help="A .py file that defines `run`, or a training_options.json."),
    overrides: Overrides = None,
    folds: Folds = None,
    resume: Resume = False,
    resume_from: ResumeFrom = None,
    hosts: HostList = None,
    host_index: HostIndex = None,
    restarts: Restarts = 0,
    trust: bool = typer.Option(False, "--trust", help="Allow a .json to run code outside keras.applications."),
) -> None:
    """Train a run, and write models, logs and metrics to its output folder."""
    check_folds(folds, hosts, host_index)
    supervised(restarts)
    declared = with_overrides(load_run(run, trust), overrides or [])
    if not resume and resume_from is None:  # the checkpoint has the weights
        check_weights(declared)

    if train_declared(
        declared, folds=folds, resume=resume, resume_from=resume_from, hosts=hosts, host_index=host_index
    ):
        raise typer.Exit(STOPPED_EARLY)
