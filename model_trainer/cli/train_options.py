"""The options that `train` and `script/TrainModel.py` have in common."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from model_trainer.cluster.supervisor import STARTED, supervise

__all__ = ["HostIndex", "HostList", "Overrides", "Restarts", "Resume", "ResumeFrom", "supervised"]

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Such as training.epochs=5; repeatable.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the newest run of this name stopped.")]
ResumeFrom = Annotated[
    str | None,
    typer.Option("--resume-from", metavar="DIR", help="Go on where the run in this output folder stopped."),
]
HostList = Annotated[
    str | None,
    typer.Option("--hosts", metavar="A:PORT,B:PORT", help="Train on several machines: the same list on each."),
]
HostIndex = Annotated[int | None, typer.Option("--host-index", help="Which of --hosts this machine is, from 0.")]
Restarts = Annotated[
    int, typer.Option("--restarts", metavar="N", min=0, help="Start again up to N times after a crash or lost machine.")
]


def supervised(restarts: int) -> None:
    """With `restarts` runs this very command in a child process, which it starts again; exits with the last code.

    In the child it does nothing.
    """
    if not restarts or STARTED in os.environ:
        return
    # A child that is started again goes on with a run that began under this supervisor, not with an older one.
    os.environ[STARTED] = time.strftime("%Y%m%d-%H%M%S")
    raise typer.Exit(supervise([sys.executable, *sys.orig_argv[1:]], restarts))
