"""The epochs with the best models so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from model_trainer.tasks.metrics import MacroRecall, Metric
from model_trainer.training.history import Row

__all__ = ["BestModels"]


class _Best(NamedTuple):
    """The best epoch for a model file; lower values are better.

    Attributes:
        value: the loss or metric that selects the model; negated if higher is better.
        loss: breaks ties.
        epoch: counted from 1; 0 if there is none.
    """

    value: float = math.inf
    loss: float = math.inf
    epoch: int = 0


class BestModels:
    """Tracks the best value of the loss and of the metrics that have a model file.

    Validation metrics select the best epoch; a run without validation uses its training metrics.

    Args:
        metrics: of the task; the first is the main one, which selects `model_max_acc` whatever its name is. With
            macro recall among them there is a `model_max_sensitivity` too.
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
        """The epoch of the model in each file, by file name without suffix; counted from 1, 0 if there is none."""
        return {name: best.epoch for name, best in self._best.items()}

    def improved(self, row: Row) -> list[str]:
        """Compares `row` with the best epochs so far, and returns the file names, without suffix, that it improves.

        Among equal values the lower loss is better, and among equal losses the earlier epoch.
        """
        names = []
        for file_name, (column, sign) in self._columns.items():
            candidate = _Best(sign * self._value(row, column), self._value(row, "loss"), int(row["epoch"]))
            best = self._best[file_name]
            # Comparisons with NaN are false, so NaN is never the best.
            if candidate.value < best.value or (candidate.value == best.value and candidate.loss < best.loss):
                self._best[file_name] = candidate
                names.append(file_name)
        return names

    def forget(self, name: str) -> None:
        """Resets the best value for a file, so that the next epoch becomes the best."""
        self._best[name] = _Best()

    def get_state(self) -> dict[str, Any]:
        """Returns the best epochs so far, for a checkpoint."""
        return {name: list(best) for name, best in self._best.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `get_state`; older versions stored only the value; an equal one does not beat it."""
        for name in self._columns:
            saved = state.get(name, [])
            self._best[name] = _Best(*saved) if isinstance(saved, list) else _Best(float(saved), -math.inf)

    @staticmethod
    def epochs_of_state(state: Mapping[str, Any]) -> dict[str, int]:
        """Like `epochs`, from the result of `get_state`; without the files whose best epoch is unknown."""
        best = {name: _Best(*saved) for name, saved in state.items() if isinstance(saved, list)}
        return {name: each.epoch for name, each in best.items() if each.epoch}

    def _value(self, row: Row, column: str) -> float:
        if f"val_{column}" in row or column in row:
            return row.get(f"val_{column}", row.get(column, math.nan))
        # A full-pass metric has no training value: the first metric that has one is used.
        return next((row[metric.name] for metric in self._metrics if metric.name in row), math.nan)
