"""The options that `model-trainer train` and `script/TrainModel.py` share."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from model_trainer.cluster.supervisor import STARTED, supervise

__all__ = ["Folds", "HostIndex", "HostList", "NoReport", "Overrides", "Restarts", "Resume", "ResumeFrom", "supervised"]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change an option, such as training.epochs=5; repeatable."),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds", metavar="N", min=2, help="Train a model for each of N folds of the data: k-fold cross-validation."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the newest run of this name from its checkpoint.")]
ResumeFrom = Annotated[
    str | None,
    typer.Option("--resume-from", metavar="DIR", help="Continue the run in this output folder."),
]
HostList = Annotated[
    str | None,
    typer.Option(
        "--hosts",
        metavar="A:PORT,B:PORT",
        help="Train on several machines: start the command on each with this same list.",
    ),
]
HostIndex = Annotated[
    int | None, typer.Option("--host-index", metavar="N", help="Index of this machine in --hosts, from 0.")
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Skip the evaluation and the report at the end.")]
Restarts = Annotated[
    int, typer.Option("--restarts", metavar="N", min=0, help="Restart up to N times after a crash or a lost machine.")
]


def supervised(restarts: int) -> None:
    """If `restarts` is above 0, runs this command in a child process that is restarted, and exits with its last code.

    In the child process it does nothing.
    """
    if not restarts or STARTED in os.environ:
        return
    # A restarted child continues a run that this supervisor has started, not an older one.
    os.environ[STARTED] = time.strftime("%Y%m%d-%H%M%S")
    raise typer.Exit(supervise([sys.executable, *sys.orig_argv[1:]], restarts))
