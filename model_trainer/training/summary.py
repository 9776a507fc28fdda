"""What is printed when a run has ended."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from model_trainer.training.progress import format_seconds
from model_trainer.training.train import Result

__all__ = ["print_summary"]


def print_summary(result: Result, console: Console) -> None:
    """Prints a table of epochs, how many images were left out, and where the files lie."""
    if result.history:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in result.history[0]:
            table.add_column(name, justify="right")
        for row in result.history:
            table.add_row(*(_cell(name, value) for name, value in row.items()))
        console.print(table)
    if result.bad_images:
        console.print(f"{len(result.bad_images)} images could not be read; bad_images.csv names them.")
    if result.stopped:
        epochs = f"{len(result.history)} whole epoch{'s' * (len(result.history) != 1)}"
        console.print(f"Stopped early by {result.stopped} after {epochs}; --resume goes on.")
    if result.not_saved:
        console.print(f"{result.not_saved} With --resume training goes on from the checkpoint before.", soft_wrap=True)
    for hint in result.hints:
        console.print(hint, soft_wrap=True, highlight=False, markup=False)
    # Neither wrapped nor coloured, so that it can be copied and clicked.
    console.print(f"Results: {result.path}", soft_wrap=True, highlight=False)


def _cell(name: str, value: float) -> str:
    if name == "epoch":
        return str(int(value))
    if name == "learning_rate":
        return f"{value:.2e}"
    return format_seconds(value) if name == "seconds" else f"{value:.4f}"
