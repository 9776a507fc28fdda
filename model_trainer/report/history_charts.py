"""Charts of training: loss and metrics by epoch, the learning rate, and the loss by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from model_trainer.display.curves import NOT_METRICS
from model_trainer.report.line_charts import LineChart, Series, line_chart
from model_trainer.report.metric_names import metric_name
from model_trainer.report.run_files import RunFiles

__all__ = ["best_epoch", "compared_charts", "history_charts", "metric_columns"]

MAX_CHARTS = 40  # metrics; a page with more would be neither small nor readable


def history_charts(run: RunFiles) -> list[LineChart]:
    """A chart of the loss and of each metric by epoch, then the learning rate, and the loss by step."""
    charts = [
        line_chart(
            metric_name(name),
            [
                _series(label, run.history, column, color, dashed=column == name)
                for label, column, color in (("training", name, 1), ("validation", f"val_{name}", 0))
                if any(column in row for row in run.history)
            ],
            "epoch",
            from_zero=_is_loss(name),
        )
        for name in metric_columns(run.history)
    ]
    if any("learning_rate" in row for row in run.history):
        charts.append(
            line_chart(
                "Learning rate", [_series("learning rate", run.history, "learning_rate", 2)], "epoch", from_zero=True
            )
        )
    steps = [
        (step, loss)
        for step, loss in ((row["step"], row["loss"]) for row in run.steps)
        if step is not None and loss is not None
    ]
    if len(steps) > 1:
        series = Series("training", [step for step, _ in steps], [loss for _, loss in steps], 1)
        charts.append(line_chart("Loss", [series], "step", from_zero=True))
    return charts


def compared_charts(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[LineChart]:
    """A chart of each metric with one curve for each run: of validation, or of training where there is none.

    Args:
        runs: the rows of each run's history by its name.
    """
    names = dict.fromkeys(name for rows in runs.values() for name in metric_columns(rows))
    charts = []
    for name in names:
        series = []
        for color, (run, rows) in enumerate(runs.items()):
            is_validated = any(f"val_{name}" in row for row in rows)
            column = f"val_{name}" if is_validated else name
            if any(column in row for row in rows):
                label = run if is_validated else f"{run}, training"
                series.append(_series(label, rows, column, color, dashed=not is_validated))
        charts.append(line_chart(metric_name(name), series, "epoch", from_zero=_is_loss(name)))
    return charts


def metric_columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of the loss and the metrics, without "val_", in the order of the file; the first 40."""
    return list(dict.fromkeys(name.removeprefix("val_") for row in rows for name in row if name not in NOT_METRICS))[
        :MAX_CHARTS
    ]


def best_epoch(run: RunFiles) -> tuple[str, float, int] | None:
    """The best value of the task's main metric: its column, the value and its epoch; None without epochs.

    Of equal values the one with the lower loss is the best, as for `model_max_acc.hdf5`; then the first.
    """
    # Validation has more metrics than training, in the order of the task, whose first one is the main metric.
    columns = list(dict.fromkeys(column for row in run.history for column in row if column.startswith("val_")))
    columns = columns or metric_columns(run.history)
    if not columns:
        return None
    column = next((column for column in columns if not _is_loss(column)), columns[0])
    rows = [row for row in run.history if math.isfinite(row.get(column, math.nan))]
    if not rows:
        return None
    loss = "val_loss" if any("val_loss" in row for row in run.history) else "loss"

    def rank(row: Mapping[str, float]) -> tuple[float, float]:
        known_loss = row.get(loss, math.nan)
        return row[column] if _is_loss(column) else -row[column], math.inf if math.isnan(known_loss) else known_loss

    best = min(rows, key=rank)
    return column, best[column], int(best["epoch"])


def _series(
    label: str, rows: Sequence[Mapping[str, float]], column: str, color: int, *, dashed: bool = False
) -> Series:
    return Series(label, [row["epoch"] for row in rows], [row.get(column, math.nan) for row in rows], color, dashed)


def _is_loss(name: str) -> bool:
    return name.endswith("loss")
