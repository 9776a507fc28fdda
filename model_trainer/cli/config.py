"""`model-trainer config`."""

from __future__ import annotations

import json
from typing import Any

import typer

__all__ = ["config"]


def config(
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Show what is configured about object stores, and where each value comes from.

    A value comes from an option of the command line, or else an environment variable, or else model-trainer.toml in
    the current folder or in ~/.config, or else it is the default. Secrets are masked.
    """
    from model_trainer.storage.configuration_shown import shown_configuration

    rows = shown_configuration()
    if as_json:
        typer.echo(json.dumps({row.name: {"value": row.value, "source": row.source} for row in rows}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("Setting", "Value", "From"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.name, _text(row.value), row.source)
    Console(markup=False, highlight=False).print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:,}"
    return value or "-"
