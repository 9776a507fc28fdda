"""Which epochs gave the best models so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from model_trainer.tasks.metrics import MacroRecall, Metric
from model_trainer.training.history import Row

__all__ = ["BestModels"]


class _Best(NamedTuple):
    """The best epoch for a file; less is better.

    Attributes:
        value: of the figure that decides, or its negative where that should rise.
        loss: decides between equals.
        epoch: counted from 1; 0 of none.
    """

    value: float = math.inf
    loss: float = math.inf
    epoch: int = 0


class BestModels:
    """Keeps the best value of the loss and of the metrics that get a file of their own.

    Validation decides; a run without validation is judged by its training metrics.

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
        self._best = dict.fromkeys(self._columns, _Best())

    @property
    def epochs(self) -> dict[str, int]:
        """By file name without suffix, the epoch whose model it holds, counted from 1; 0 of none."""
        return {name: best.epoch for name, best in self._best.items()}

    def improved(self, row: Row) -> list[str]:
        """File names, without suffix, for which `row` is better than all before.

        Of equals the one with the lower loss is better, and of those the first.
        """
        names = []
        for file_name, (column, sign) in self._columns.items():
            now = _Best(sign * self._value(row, column), self._value(row, "loss"), int(row["epoch"]))
            before = self._best[file_name]
            if now.value < before.value or (now.value == before.value and now.loss < before.loss):  # never for NaN
                self._best[file_name] = now
                names.append(file_name)
        return names

    def forget(self, name: str) -> None:
        """Lets the next epoch be the best for a file."""
        self._best[name] = _Best()

    def get_state(self) -> dict[str, Any]:
        """The best so far, for a checkpoint."""
        return {name: list(best) for name, best in self._best.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `get_state` gave; older versions kept a value alone, which equals do not beat."""
        for name in self._columns:
            saved = state.get(name, [])
            self._best[name] = _Best(*saved) if isinstance(saved, list) else _Best(float(saved), -math.inf)

    @staticmethod
    def epochs_of_state(state: Mapping[str, Any]) -> dict[str, int]:
        """As `epochs`, from what `get_state` gave; without those of which none is known."""
        best = {name: _Best(*saved) for name, saved in state.items() if isinstance(saved, list)}
        return {name: each.epoch for name, each in best.items() if each.epoch}

    def _value(self, row: Row, column: str) -> float:
        if f"val_{column}" in row or column in row:
            return row.get(f"val_{column}", row.get(column, math.nan))
        # Of a metric over all predictions there is no training figure: the first that has one decides.
        return next((row[metric.name] for metric in self._metrics if metric.name in row), math.nan)
