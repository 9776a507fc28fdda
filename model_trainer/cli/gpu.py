"""`model-trainer gpu`."""

from __future__ import annotations

import typer

__all__ = ["gpu"]


def gpu(as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else.")) -> None:
    """Check whether TensorFlow finds the GPUs, and whether they compute correctly and fast; if not, explain why."""
    from model_trainer.diagnosis.gpu import main

    raise typer.Exit(main(as_json=as_json))
