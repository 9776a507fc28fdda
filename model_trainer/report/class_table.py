"""The tables of metrics by class, by slices of the data, and by folds of a k-fold training."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from model_trainer.report.evaluation_file import ClassColumn, Coarse, Estimate, EvaluationFile
from model_trainer.report.line_charts import number_text
from model_trainer.report.metric_names import metric_name
from model_trainer.report.run_files import FoldsFile

__all__ = ["MAX_FOLDS", "Cell", "ClassTable", "SliceTable", "class_table", "fold_table", "slice_tables"]

MAX_SLICES = 200  # rows of a slice table
MAX_COLUMNS = 24
MAX_FOLDS, MAX_METRICS = 50, 100
MAX_ROWS = 2_000  # a page with more would be neither small nor fast; evaluation.json has all
ORDER = ("f1", "average_precision", "recall")  # the first that is available decides which classes are the worst


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it shows.
        key: the number to sort by; None for text, and for an undefined value, which comes last.
        note: its interval, such as "0.81 to 0.93"; empty if there is none.
        percent: length of a bar behind a fraction; None for none.
    """

    text: str
    key: float | None = None
    note: str = ""
    percent: float | None = None


@dataclass(frozen=True)
class ClassTable:
    """Metrics by class.

    Attributes:
        columns: the names, of which the first is the class.
        rows: cells; the first is the name of the class.
        num_classes: of the evaluation; more than there are rows if only the worst are shown.
        order: name of the metric that decided which are the worst.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_classes: int
    order: str


def class_table(evaluation: EvaluationFile, word: str) -> ClassTable | None:
    """Lays out the metrics by class; None if there are none.

    Args:
        word: "class" or "tag".
    """
    if not evaluation.per_class or not evaluation.classes:
        return None
    first = list(evaluation.per_class.items())[:MAX_COLUMNS]
    columns = {name: column for name, column in first if name not in ("images", "unknown")}
    counts = {name: column for name, column in first if isinstance(column, list)}
    order = next((name for name in ORDER if isinstance(columns.get(name), ClassColumn)), "")
    chosen = _worst(columns.get(order), len(evaluation.classes))
    confused = _most_confused(evaluation)
    rows = []
    for index in chosen:
        row = [Cell(evaluation.classes[index])]
        row += [Cell(f"{column[index]:,}", float(column[index])) for column in counts.values()]
        row += [
            _metric_cell(name, column, index) for name, column in columns.items() if isinstance(column, ClassColumn)
        ]
        if confused is not None:
            row.append(Cell(confused.get(evaluation.classes[index], "")))
        rows.append(tuple(row))
    names = [word.capitalize(), *map(metric_name, counts)]
    names += [metric_name(name) for name, column in columns.items() if isinstance(column, ClassColumn)]
    names += ["Most often predicted as"] if confused is not None else []
    return ClassTable(tuple(names), tuple(rows), len(evaluation.classes), metric_name(order) if order else "")


def _worst(column: ClassColumn | list[int] | None, num_classes: int) -> list[int]:
    """The indices of all classes, or of those with the lowest values, in the order of the classes."""
    if num_classes <= MAX_ROWS:
        return list(range(num_classes))
    if not isinstance(column, ClassColumn):
        return list(range(MAX_ROWS))
    defined = [(value, index) for index, value in enumerate(column.value) if value is not None]
    return sorted(index for _, index in heapq.nsmallest(MAX_ROWS, defined))


def _metric_cell(name: str, column: ClassColumn, index: int) -> Cell:
    value = column.value[index]
    low, high = ((each[index] if each is not None else None) for each in (column.low, column.high))
    is_bar = name not in ("threshold",) and value is not None and 0 <= value <= 1
    return Cell(
        text="–" if value is None else f"{value:.3f}",
        key=value,
        note=f"{low:.2f} to {high:.2f}" if low is not None and high is not None else "",
        percent=round(100 * value, 1) if is_bar and value is not None else None,
    )


def _most_confused(evaluation: EvaluationFile) -> dict[str, str] | None:
    """By true class, the other class that is predicted most often, with its count; None for tags."""
    if evaluation.confusion is None:
        return None
    matrix, classes = evaluation.confusion.matrix, evaluation.classes
    if matrix is None:
        pairs: dict[str, str] = {}
        for pair in evaluation.confusion.largest:  # the largest first
            pairs.setdefault(pair.true, f"{pair.predicted} ({number_text(pair.images)})")
        return pairs
    confused = {}
    for index, row in enumerate(matrix):
        count, negative = max(((each, -other) for other, each in enumerate(row) if other != index), default=(0, 0))
        confused[classes[index]] = f"{classes[-negative]} ({count:,})" if count else ""
    return confused


@dataclass(frozen=True)
class SliceTable:
    """Metrics by the values of a column.

    Attributes:
        by: name of the column.
        columns: names, of which the first is `by`.
        rows: cells, the worst value first.
        num_more: how many values are left out.
    """

    by: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_more: int


def slice_tables(evaluation: EvaluationFile) -> list[SliceTable]:
    """Lays out the metrics of slices."""
    tables = []
    for each in evaluation.slices:
        names = list(dict.fromkeys(name for value in each.values for name in value.metrics))[:MAX_COLUMNS]
        rows = tuple(
            (
                Cell(value.value),
                Cell(f"{value.images:,}", float(value.images)),
                *(_estimate_cell(value.metrics.get(name)) for name in names),
            )
            for value in each.values[:MAX_SLICES]
        )
        columns = (each.by, "Images", *map(metric_name, names))
        tables.append(SliceTable(each.by, columns, rows, len(each.values) - len(rows)))
    if evaluation.coarse is not None:
        tables.append(_coarse_table(evaluation.coarse))
    return tables


def _coarse_table(coarse: Coarse) -> SliceTable:
    """Lays out the metrics of the coarser classes: over all images in the first row, then of each class."""
    names = [name for name in ("precision", "recall", "f1") if isinstance(coarse.per_class.get(name), ClassColumn)]
    images = coarse.per_class.get("images")
    counts = images if isinstance(images, list) else [0] * len(coarse.classes)
    overall = [coarse.metrics.get("accuracy" if name == "recall" else f"macro_{name}") for name in names]
    rows = [(Cell("all"), Cell(f"{sum(counts):,}", float(sum(counts))), *map(_estimate_cell, overall))]
    for index, name in enumerate(coarse.classes[:MAX_SLICES]):
        columns = [coarse.per_class[each] for each in names]
        values = [Estimate(value=column.value[index]) for column in columns if isinstance(column, ClassColumn)]
        rows.append((Cell(name), Cell(f"{counts[index]:,}", float(counts[index])), *map(_estimate_cell, values)))
    by = f"the coarser classes of {coarse.mapping}, whose probabilities are added up"
    headers = ("Recall; of all, accuracy" if name == "recall" else metric_name(name) for name in names)
    return SliceTable(by, ("Class", "Images", *headers), tuple(rows), max(0, len(coarse.classes) - MAX_SLICES))


def _estimate_cell(estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return Cell("–")
    has_interval = estimate.low is not None and estimate.high is not None
    return Cell(
        f"{estimate.value:.3f}", estimate.value, f"{estimate.low:.2f} to {estimate.high:.2f}" if has_interval else ""
    )


def fold_table(folds: FoldsFile) -> tuple[list[str], list[list[str]]] | None:
    """The names of the columns and the rows of texts, one for each metric; None before all folds are evaluated."""
    if not folds.metrics:
        return None
    count = min(MAX_FOLDS, max(len(metric.folds) for metric in folds.metrics.values()))
    columns = ["Metric", "Mean", "Standard deviation", "Out of fold", *(f"Fold {fold + 1}" for fold in range(count))]
    names = sorted(folds.metrics, key=lambda name: name != folds.main_metric)[:MAX_METRICS]
    rows = []
    for name in names:
        metric = folds.metrics[name]
        values = [metric.mean, metric.standard_deviation, metric.out_of_fold, *metric.folds[:count]]
        rows.append([metric_name(name), *("–" if value is None else f"{value:.3f}" for value in values)])
    return columns, rows
