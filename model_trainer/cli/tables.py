"""Results as tables on a terminal, and as plain columns in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model_trainer.tasks.evaluation import Evaluation

__all__ = ["print_evaluation", "print_predictions", "print_specs"]


def print_specs(console: Console) -> None:
    """Prints one row for each named spec."""
    from model_trainer.specs import TABLE, ModelSpec

    table = _table("name", "size", "preprocess_func", "class")
    for name in TABLE:
        spec = ModelSpec.named(name)
        height, width, channels = spec.target_size
        table.add_row(name, f"{height} x {width} x {channels}", spec.preprocess_func, spec.class_)
    _print_table(table, console)


def print_predictions(results: list[dict[str, Any]], console: Console, errors: Console) -> None:
    """Prints one row for each image, with labels and probabilities; unreadable images are printed to `errors`."""
    table = _table("image", "predictions")
    for result in results:
        if "error" in result:
            errors.print(f"{result['image']}: {result['error']}", highlight=False, soft_wrap=True, markup=False)
        else:
            table.add_row(result["image"], "  ".join(map(_prediction_text, result["predictions"])))
    if table.row_count:
        _print_table(table, console)


def _prediction_text(prediction: dict[str, Any]) -> str:
    numbers = (f"{value:.3f}" for name, value in prediction.items() if name != "label")
    return " ".join([prediction["label"], *numbers])


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Prints the metrics over all images, then those of each class."""
    metrics = evaluation.metrics()
    width = max([15, *map(len, metrics)])
    for name, value in metrics.items():
        console.print(f"{name:{width}} {value}", highlight=False)
    by_class = evaluation.table()
    if by_class is not None:
        columns, rows = by_class
        table = _table(*columns)
        for row in rows:
            table.add_row(*row)
        _print_table(table, console)


def _print_table(table: Table, console: Console) -> None:
    """Prints a table; in a pipe at full width, so that no path is cut."""
    if not console.is_terminal:
        console = Console(file=console.file, width=100_000)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    return table
