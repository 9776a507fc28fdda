"""Which epochs gave the best models so far."""

from __future__ import annotations

import math
from collections.abc import Mapping

from model_trainer.tasks.metrics import MacroRecall, Metric
from model_trainer.training.history import Row

__all__ = ["BestModels"]


class BestModels:
    """Keeps the best value of the loss and of the metrics that get a file of their own.

    Validation decides; a run without validation is judged by its training figures.

    Args:
        metrics: of the task; the first is the main one, which `model_max_acc` follows whatever its name. With
            macro recall among them there is `model_max_sensitivity` too.
    """

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics
        self._columns = {"model_max_acc": (metrics[0].name, -1.0)}
        for metric in metrics:
            if isinstance(metric, MacroRecall):
                self._columns["model_max_sensitivity"] = (metric.name, -1.0)
        self._columns["model_min_loss"] = ("loss", 1.0)
        self._best = dict.fromkeys(self._columns, math.inf)

    def improved(self, row: Row) -> list[str]:
        """File names, without suffix, for which `row` is better than all before; the first of equals stays."""
        names = []
        for file_name, (column, sign) in self._columns.items():
            value = sign * self._value(row, column)
            if value < self._best[file_name]:  # never true for NaN
                self._best[file_name] = value
                names.append(file_name)
        return names

    def state(self) -> dict[str, float]:
        """The best values so far, for a checkpoint."""
        return dict(self._best)

    def restore(self, state: Mapping[str, float]) -> None:
        """Goes on from what `state` gave."""
        self._best = {name: float(state.get(name, math.inf)) for name in self._columns}

    def _value(self, row: Row, column: str) -> float:
        if f"val_{column}" in row or column in row:
            return row.get(f"val_{column}", row.get(column, math.nan))
        # Of a metric over all predictions there is no training figure: the first that has one decides.
        return next((row[metric.name] for metric in self._metrics if metric.name in row), math.nan)
