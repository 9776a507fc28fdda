"""`model-trainer cache`: the cache of object stores on the local disk."""

from __future__ import annotations

import json

import typer

__all__ = ["cache"]


def cache(
    clear: bool = typer.Option(False, "--clear", help="Delete the whole cache; it is filled again when needed."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show or clear the cache on this disk: images and listings of object stores, and indexes of record files.

    Its location and maximum size are settings: see `model-trainer config`.
    """
    from model_trainer.messages import counted
    from model_trainer.storage import cached
    from model_trainer.storage.write_errors import size_text

    usage = cached.usage()
    if clear:
        cached.clear()
    if as_json:
        typer.echo(json.dumps({**vars(usage), "cleared": clear}))
        return
    what = counted(usage.count, "image{s} and range{s}")
    size = f"{size_text(usage.num_bytes)} of at most {size_text(usage.max_bytes)}"
    state = "were cached; all deleted" if clear else "are cached"
    typer.echo(f"{usage.folder}: {what} ({size}) {state}.")
