"""`model-trainer train`."""

from __future__ import annotations

import typer

from model_trainer.cli.errors import STOPPED_EARLY
from model_trainer.cli.overrides import load_run, with_overrides
from model_trainer.cli.starting import check_weights
from model_trainer.cli.train_options import (
    HostIndex,
    HostList,
    Overrides,
    Restarts,
    Resume,
    ResumeFrom,
    supervised,
)
from model_trainer.stderr_filter import filter_stderr_until_exit

__all__ = ["train"]


def train(
    run: str = typer.Argument(help="A .py file that defines `run`, or a training_options.json."),
    overrides: Overrides = None,
    resume: Resume = False,
    resume_from: ResumeFrom = None,
    hosts: HostList = None,
    host_index: HostIndex = None,
    restarts: Restarts = 0,
    trust: bool = typer.Option(False, "--trust", help="Allow a .json to run code outside keras.applications."),
) -> None:
    """Train a run, and write models, logs and metrics to its output folder."""
    supervised(restarts)
    declared = with_overrides(load_run(run, trust), overrides or [])
    if not resume and resume_from is None:  # the checkpoint has the weights
        check_weights(declared)

    typer.echo("Starting TensorFlow ...", err=True)
    filter_stderr_until_exit()
    from model_trainer.api import train as train_run

    if train_run(declared, resume, resume_from, hosts=hosts, host_index=host_index).stopped:
        raise typer.Exit(STOPPED_EARLY)
