"""Answers as tables on a terminal, and as plain columns in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model_trainer.evaluation.classification import Evaluation
    from model_trainer.evaluation.multi_label import MultiLabelEvaluation

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
            shown = "  ".join(f"{each['label']} {each['probability']:.3f}" for each in answer["predictions"])
            table.add_row(answer["image"], shown)
    if table.row_count:
        _print_table(table, console)


def print_evaluation(evaluation: Evaluation | MultiLabelEvaluation, console: Console) -> None:
    """The figures of all images, then of each class."""
    from model_trainer.evaluation.classification import Evaluation

    if isinstance(evaluation, Evaluation):
        _print_classification(evaluation, console)
    else:
        _print_multi_label(evaluation, console)


def _print_classification(evaluation: Evaluation, console: Console) -> None:
    figures = {"images": f"{evaluation.num_images:,}", "loss": f"{evaluation.loss:.4f}"}
    if evaluation.num_bad:
        figures["unreadable"] = f"{evaluation.num_bad:,}"
    figures |= {"accuracy": f"{evaluation.accuracy:.4f}", "sensitivity": f"{evaluation.sensitivity:.4f}"}
    if evaluation.top_5_accuracy is not None:
        figures["top_5_accuracy"] = f"{evaluation.top_5_accuracy:.4f}"
    for name, value in figures.items():
        console.print(f"{name:15} {value}", highlight=False)
    table = _table("class", "images", "precision", "recall", "f1", "most often taken for")
    for index, name in enumerate(evaluation.classes):
        confused = evaluation.confusion[index].copy()
        confused[index] = 0
        worst = int(confused.argmax())
        table.add_row(
            name,
            str(evaluation.support[index]),
            f"{evaluation.precision[index]:.3f}",
            f"{evaluation.recall[index]:.3f}",
            f"{evaluation.f1[index]:.3f}",
            f"{evaluation.classes[worst]} ({confused[worst]})" if confused[worst] else "",
        )
    _print_table(table, console)


def _print_multi_label(evaluation: MultiLabelEvaluation, console: Console) -> None:
    console.print(f"{'images':25} {evaluation.num_images:,}", highlight=False)
    if evaluation.num_bad:
        console.print(f"{'unreadable':25} {evaluation.num_bad:,}", highlight=False)
    of_all = {
        "map": evaluation.mean_average_precision,
        "cross_entropy": evaluation.loss,
        "micro_f1": evaluation.micro_f1,
        "macro_f1": evaluation.macro_f1,
        "exact_match": evaluation.exact_match,
        "micro_f1_at_thresholds": evaluation.micro_f1_at_thresholds,
        "macro_f1_at_thresholds": evaluation.macro_f1_at_thresholds,
        "exact_match_at_thresholds": evaluation.exact_match_at_thresholds,
    }
    for name, value in of_all.items():
        console.print(f"{name:25} {value:.4f}", highlight=False)
    table = _table("tag", "images", "average precision", "threshold", "precision", "recall", "f1")
    for index, name in enumerate(evaluation.classes):
        figures = [
            evaluation.average_precision[index],
            evaluation.thresholds[index],
            evaluation.precision[index],
            evaluation.recall[index],
            evaluation.f1[index],
        ]
        table.add_row(name, str(evaluation.support[index]), *(f"{figure:.3f}" for figure in figures))
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
