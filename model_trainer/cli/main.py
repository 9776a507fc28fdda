"""The command line `model-trainer COMMAND`."""

from __future__ import annotations

import typer

import model_trainer
from model_trainer.cli import (
    cache,
    config,
    doctor,
    evaluate,
    gpu,
    predict,
    preview,
    report,
    runs,
    serve,
    specs,
    sync,
    train,
)
from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.help import Command, Group
from model_trainer.cli.store_options import with_store_options

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Group,
    help=(
        "Train Keras image classifiers, of one label or several, from a short declaration, and get .hdf5 files that "
        "plain Keras loads."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    train.train,
    doctor.doctor,
    preview.preview,
    evaluate.evaluate,
    predict.predict,
    serve.serve,
    report.report,
    runs.runs,
    sync.sync,
    config.config,
    cache.cache,
    specs.specs,
    gpu.gpu,
)
WITHOUT_PATHS = (specs.specs, gpu.gpu)
for command in COMMANDS:
    app.command(cls=Command)(command if command in WITHOUT_PATHS else with_store_options(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"model-trainer {model_trainer.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Declares the options before the command: only --version."""


def main() -> None:
    """Runs the command line, and exits with the exit code of the command."""
    raise SystemExit(exit_code_of(lambda: app(standalone_mode=True)))
