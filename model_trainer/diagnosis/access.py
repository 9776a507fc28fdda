"""`model-trainer doctor s3://...`: prints what the credentials may do there, and how the bucket is protected."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from model_trainer.messages import shown
from model_trainer.storage.objects.access import Result, check_access

__all__ = ["diagnose_access"]

_STYLES = {Result.ok: "green", Result.missing: "bold red", Result.warning: "yellow", Result.unknown: "dim"}


def diagnose_access(path: str, *, writes: bool = False) -> int:
    """Checks access under a URL and prints a line for each check.

    Args:
        path: URL in an object store.
        writes: also check writing and deleting, with a small object.

    Returns:
        The exit code: 0, or 1 if a permission is missing.

    Raises:
        StorageError: the store does not answer, there is no such bucket, or the credentials are wrong.
    """
    checks = check_access(path, writes=writes)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(
            check.name, f"[{_STYLES[check.result]}]{check.result}[/]", shown(check.detail).replace("[", r"\[")
        )
    console = Console(highlight=False)
    console.print(f"Access to {shown(path)}", markup=False)
    console.print(table)
    return 1 if any(check.result is Result.missing for check in checks) else 0
