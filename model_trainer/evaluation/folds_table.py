"""Prints the metrics of all folds, and renders them in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from model_trainer.display.notebook import in_notebook
from model_trainer.messages import counted

if TYPE_CHECKING:
    from model_trainer.evaluation.folds import FoldsResult

__all__ = ["folds_html", "print_folds"]

MAX_METRICS = 4  # columns that fit 80 characters; folds.json has all


def print_folds(result: FoldsResult, console: Console) -> None:
    """Prints a table with a row for each fold, and one each for mean, spread and the out-of-fold predictions."""
    if result.metrics and not in_notebook():
        columns, rows = _table(result)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, justify="left" if column == "fold" else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if result.stopped:
        finished = sum(not fold.stopped for fold in result.folds)
        resume = "train_folds(run, resume=True)" if in_notebook() else "--resume"
        console.print(
            f"Stopped early by {result.stopped} after {counted(finished, 'complete fold{s}')}; {resume} continues.",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
    for hint in dict.fromkeys(hint for fold in result.folds for hint in fold.hints):
        console.print(hint, soft_wrap=True, highlight=False, markup=False)
    console.print(f"Results: {result.path}", soft_wrap=True, highlight=False)


def folds_html(result: FoldsResult) -> str:
    """The HTML representation of a result: the table of the folds, and the folder."""
    from model_trainer.display.pages import render_table

    columns, rows = _table(result) if result.metrics else ([], [])
    return render_table(counted(len(result.folds), "fold{s}"), {"output": str(result.path)}, columns, rows)


def _table(result: FoldsResult) -> tuple[list[str], list[list[str]]]:
    names = [result.main_metric, *(name for name in result.metrics if name != result.main_metric)][:MAX_METRICS]
    metrics = [result.metrics[name] for name in names]
    rows = [[str(index + 1), *(_cell(metric.folds[index]) for metric in metrics)] for index in range(len(result.folds))]
    return ["fold", *names], [
        *rows,
        ["mean", *(_cell(metric.mean) for metric in metrics)],
        ["± sd", *(_cell(metric.standard_deviation) for metric in metrics)],
        ["out of fold", *(_cell(metric.out_of_fold) for metric in metrics)],
    ]


def _cell(value: float) -> str:
    return f"{value:.4f}"
