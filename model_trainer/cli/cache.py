"""`model-trainer cache`: what is kept of object stores on the local disk."""

from __future__ import annotations

import json

import typer

__all__ = ["cache"]


def cache(
    clear: bool = typer.Option(False, "--clear", help="Delete everything that is kept; it is read again when needed."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show or clear what is kept of object stores: images and listings.

    Its place and its maximum size are in the configuration: see `model-trainer config`.
    """
    from model_trainer.storage import cached

    kept = cached.kept()
    if clear:
        cached.clear()
    if as_json:
        typer.echo(json.dumps({**vars(kept), "cleared": clear}))
        return
    was = "were" if clear else "are"
    typer.echo(
        f"{kept.folder}: {kept.count:,} images and ranges, {kept.num_bytes / 1e9:.2f} GB of at most "
        f"{kept.max_bytes / 1e9:.2f} GB, {was} kept{'; all deleted now' if clear else ''}."
    )
