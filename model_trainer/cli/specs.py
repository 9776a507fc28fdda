"""`model-trainer specs`."""

from __future__ import annotations

import json

import typer

__all__ = ["specs"]


def specs(name: str | None = typer.Argument(None, help="Print this spec as JSON.")) -> None:
    """List the models that can be trained by name, or print one spec."""
    from model_trainer.specs import ModelSpec

    if name is not None:
        typer.echo(json.dumps(ModelSpec.named(name).to_dict(), indent=2))
        return
    from rich.console import Console

    from model_trainer.cli.tables import print_specs

    print_specs(Console())
