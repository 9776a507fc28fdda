"""Answers as tables on a terminal, and as plain columns in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model_trainer.tasks.evaluation import Evaluation

__all__ = ["print_evaluation", "print_predictions", "print_specs"]


def print_specs(console: Console) -> None:
    """One line for each named spec."""
    from model_trainer.specs import TABLE, ModelSpec

    table = _table("name", "size", "preprocess_func", "class")
    for name in TABLE:
        spec = ModelSpec.named(name)
        height, width, channels = spec.target_size
        table.add_row(name, f"{height} x {width} x {channels}", spec.preprocess_func, spec.class_)
    _print_table(table, console)


def print_predictions(answers: list[dict[str, Any]], console: Console, errors: Console) -> None:
    """One row for each image: its labels with their probabilities; reasons go to `errors`."""
    table = _table("image", "predictions")
    for answer in answers:
        if "error" in answer:
            errors.print(f"{answer['image']}: {answer['error']}", highlight=False, soft_wrap=True, markup=False)
        else:
            table.add_row(answer["image"], "  ".join(map(_prediction_text, answer["predictions"])))
    if table.row_count:
        _print_table(table, console)


def _prediction_text(prediction: dict[str, Any]) -> str:
    numbers = (f"{value:.3f}" for name, value in prediction.items() if name != "label")
    return " ".join([prediction["label"], *numbers])


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The metrics of all images, then of each class."""
    metrics = evaluation.metrics()
    width = max([15, *map(len, metrics)])
    for name, value in metrics.items():
        console.print(f"{name:{width}} {value}", highlight=False)
    of_classes = evaluation.table()
    if of_classes is not None:
        columns, rows = of_classes
        table = _table(*columns)
        for row in rows:
            table.add_row(*row)
        _print_table(table, console)


def _print_table(table: Table, console: Console) -> None:
    """Prints it; in a pipe as wide as it is, because a path that is cut says nothing."""
    if not console.is_terminal:
        console = Console(file=console.file, width=100_000)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    return table
