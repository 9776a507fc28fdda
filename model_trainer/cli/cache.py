"""`model-trainer cache`: the cache of object stores on the local disk."""

from __future__ import annotations

import json

import typer

__all__ = ["cache"]


def cache(
    clear: bool = typer.Option(False, "--clear", help="Delete everything that is kept; it is read again when needed."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show or clear what is kept: images and listings of object stores, and where records are in their files.

    Its place and its maximum size are in the configuration: see `model-trainer config`.
    """
    from model_trainer.messages import counted
    from model_trainer.storage import cached
    from model_trainer.storage.trouble import size_text

    kept = cached.kept()
    if clear:
        cached.clear()
    if as_json:
        typer.echo(json.dumps({**vars(kept), "cleared": clear}))
        return
    what = counted(kept.count, "image{s} and range{s}")
    size = f"{size_text(kept.num_bytes)} of at most {size_text(kept.max_bytes)}"
    state = "were kept; all deleted now" if clear else "are kept"
    typer.echo(f"{kept.folder}: {what} ({size}) {state}.")
