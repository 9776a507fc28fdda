"""`model-trainer runs`."""

from __future__ import annotations

import json

import typer

__all__ = ["runs"]


def runs(
    folder: str | None = typer.Argument(
        None, metavar="DIR", help="Folder that contains the output folders; default: output, or the setting output_dir."
    ),
    sort: str = typer.Option(
        "-started",
        "--sort",
        metavar="NAME",
        help="Sort by a column, metric or option, such as val_loss or training.epochs; -NAME: highest first.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list and nothing else on standard output."),
) -> None:
    """List all runs with their states, their best metrics, and the options in which they differ.

    A best metric is from evaluation/evaluation.json if there is one, otherwise from the best epoch in history.csv.
    """
    from model_trainer.report.runs import list_runs
    from model_trainer.report.runs_table import differing_settings, settings_of_all, sorted_runs
    from model_trainer.storage import configuration

    runs = sorted_runs(list_runs(configuration.current().output_dir if folder is None else folder), sort)
    settings = differing_settings(runs)
    if as_json:
        typer.echo(json.dumps([run.to_dict(settings) for run in runs], indent=2, allow_nan=False))
        return
    from rich.console import Console

    from model_trainer.cli.tables import print_runs

    shown = settings_of_all(runs, settings)
    print_runs(runs, shown, sort.removeprefix("-"), Console())
    if len(shown) < len(settings):
        num_more = len(settings) - len(shown)
        typer.echo(f"{num_more} more options differ, which not all runs have; --json has them.", err=True)
