"""`model-trainer sync`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from model_trainer.storage.sync.sync import Synchronization

__all__ = ["sync"]

MAX_FAILURES = 1000  # that are printed


def sync(
    source: str = typer.Argument(..., metavar="SOURCE", help="The folder to copy: a path, or s3://bucket/folder."),
    target: str = typer.Argument(..., metavar="TARGET", help="The folder to copy to."),
    delete: bool = typer.Option(False, "--delete", help="Delete files of TARGET that SOURCE does not have."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only print what would be copied and deleted."),
    checksum: bool = typer.Option(
        False, "--checksum", help="Compare files of the same size by their checksums even if their times match."
    ),
    jobs: int = typer.Option(32, "--jobs", metavar="N", min=1, max=512, help="Transfers at once."),
) -> None:
    """Copy a folder to or from an object store, or between two of them; unchanged files are skipped.

    A file is unchanged if it has the size of its source, and is not older (after a download: has the same time) or has
    the same checksum. Copies are verified, and get their names only when they are complete. After an interruption the
    same command copies the rest. Files that cannot be copied are listed after the others have been copied, with exit
    code 2; if the store does not answer, the exit code is 75.
    """
    from rich.console import Console

    from model_trainer.cli.sync_progress import SyncProgress
    from model_trainer.errors import UnavailableError
    from model_trainer.messages import shown
    from model_trainer.storage.sync.sync import Synchronization

    started = time.monotonic()
    progress = SyncProgress(Console(stderr=True))
    synchronization = Synchronization(source, target, delete, dry_run, checksum, jobs, on_progress=progress.update)
    try:
        with progress:
            synchronization.run()
    except (KeyboardInterrupt, UnavailableError):
        count = synchronization.num_copied
        typer.echo(f"{_files(count)} copied so far; the same command copies the rest.", err=True)
        raise
    for change in synchronization.changes:
        typer.echo(shown(change))
    typer.echo(_summary(synchronization, time.monotonic() - started))
    if synchronization.failures:
        _print_failures(synchronization)
        raise typer.Exit(2)


def _summary(sync: Synchronization, seconds: float) -> str:
    """Such as "20,000 files (205 MB) copied in 11 s (18 MB/s), 12 equal, 3 deleted"."""
    from model_trainer.storage.write_errors import size_text
    from model_trainer.training.progress import format_seconds

    text = f"{_files(sync.num_copied)} ({size_text(sync.num_copied_bytes)})"
    if sync.dry_run:
        text = f"Would copy {text}, {sync.num_equal:,} equal"
        return f"{text}, {sync.num_deleted:,} to delete" if sync.delete else text
    rate = size_text(sync.num_copied_bytes / max(seconds, 1e-3))
    text = f"{text} copied in {format_seconds(seconds)} ({rate}/s), {sync.num_equal:,} equal"
    return f"{text}, {sync.num_deleted:,} deleted" if sync.delete else text


def _print_failures(sync: Synchronization) -> None:
    from model_trainer.messages import shown

    for name, reason in sync.failures[:MAX_FAILURES]:
        typer.echo(f"{shown(name)}: {shown(reason)}", err=True)
    if len(sync.failures) > MAX_FAILURES:
        typer.echo(f"... and {len(sync.failures) - MAX_FAILURES:,} more", err=True)
    kept = " Nothing was deleted, because --delete waits until all is copied." if sync.has_kept else ""
    typer.echo(f"Error: {_files(len(sync.failures))} could not be copied.{kept}", err=True)


def _files(count: int) -> str:
    from model_trainer.messages import counted

    return counted(count, "file{s}")
