"""Prints the summary of a run, and renders its result in a notebook."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from model_trainer.display.curves import curves_by_epoch
from model_trainer.display.notebook import in_notebook
from model_trainer.messages import counted
from model_trainer.storage import files
from model_trainer.training.progress import format_seconds
from model_trainer.training.train import Result

__all__ = ["print_summary", "result_html"]

_UNLIMITED = 100_000  # characters


def print_summary(result: Result, console: Console) -> None:
    """Prints a table of the epochs, notes such as how training was stopped, and the output folder.

    In a notebook the table is omitted, because the result itself shows it.
    """
    if result.history and not in_notebook():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in result.history[0]:
            table.add_column(name, justify="right", overflow="fold")
        for row in result.history:
            table.add_row(*(_cell(name, value) for name, value in row.items()))
        # In a pipe each epoch is one line.
        (console if console.is_terminal else Console(file=console.file, width=_UNLIMITED)).print(table)
    # The log has named the unreadable images just before.
    for note in _notes(result):
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    # Neither wrapped nor colored, so that it can be copied and clicked.
    console.print(f"Results: {result.path}", soft_wrap=True, highlight=False)


def result_html(result: Result) -> str:
    """The HTML representation of a result: a table of the epochs, curves, and the output folder."""
    from model_trainer.display.pages import render_fragment

    columns = list(result.history[0]) if result.history else []
    models = {
        int(row["epoch"]): [name for name, epoch in result.best_epochs.items() if epoch == row["epoch"]]
        for row in result.history
    }
    return render_fragment(
        "result.html",
        heading=f"{counted(len(result.history), 'epoch{s}')} trained",
        columns=columns,
        rows=[
            {
                "cells": [_cell(name, row[name]) for name in columns],
                "models": models[int(row["epoch"])],
                "is_best": "model_max_acc" in models[int(row["epoch"])],
            }
            for row in result.history
        ],
        charts=curves_by_epoch(result.history),
        notes=[*_bad_images(result), *_notes(result)],
        path=str(result.path),
        files=sorted(files.names_in(result.path)),
    )


def _bad_images(result: Result) -> list[str]:
    count = counted(len(result.bad_images), "image{s}")
    return [f"{count} could not be read; see bad_images.csv."] if result.bad_images else []


def _notes(result: Result) -> list[str]:
    """Returns notes about the run: the signal that stopped it, a checkpoint that was not written, and hints."""
    resume = "train(run, resume=True)" if in_notebook() else "--resume"
    notes = []
    if result.stopped:
        epochs = counted(len(result.history), "complete epoch{s}")
        notes.append(f"Stopped early by {result.stopped} after {epochs}; {resume} continues.")
    if result.not_saved:
        notes.append(f"{result.not_saved} With {resume} training continues from the previous checkpoint.")
    return [*notes, *result.hints]


def _cell(name: str, value: float) -> str:
    if name == "epoch":
        return str(int(value))
    if name == "learning_rate":
        return f"{value:.2e}"
    return format_seconds(value) if name == "seconds" else f"{value:.4f}"
