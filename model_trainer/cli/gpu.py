"""`model-trainer gpu`."""

from __future__ import annotations

import typer

__all__ = ["gpu"]


def gpu(as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else.")) -> None:
    """Does TensorFlow see the GPUs, and do they compute rightly and fast; if not, why, and the cure."""
    from model_trainer.diagnosis.gpu import main

    raise typer.Exit(main(as_json=as_json))
