"""`model-trainer train`."""

from __future__ import annotations

import typer

from model_trainer.cli.errors import STOPPED_EARLY
from model_trainer.cli.overrides import load_run, with_overrides
from model_trainer.errors import ConfigError

__all__ = ["RESUME_IS_TO_COME", "train"]

RESUME_IS_TO_COME = (
    "--resume is not there yet: checkpoints come with a later version. Until then start again, or take "
    "--set weights=output/RUN/final_model.hdf5 as a start."
)


def train(
    run: str = typer.Argument(help="A .py file that defines `run`, or a training_options.json."),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Such as training.epochs=5; repeatable."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on where a run stopped (not yet)."),
    trust: bool = typer.Option(False, "--trust", help="Let a .json name code outside keras.applications."),
) -> None:
    """Train a run; leaves models, logs and figures in output/."""
    if resume:
        raise ConfigError(RESUME_IS_TO_COME)
    declared = with_overrides(load_run(run, trust), overrides)

    from model_trainer.api import train as train_run

    if train_run(declared).stopped:
        raise typer.Exit(STOPPED_EARLY)
