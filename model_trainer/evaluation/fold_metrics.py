"""A metric over the folds of a data set: the value of each, mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_trainer.metrics.estimate import finite_or_none
from model_trainer.tasks.evaluation import Evaluation

__all__ = ["FoldMetric", "metric_values"]


@dataclass(frozen=True)
class FoldMetric:
    """A metric over all folds.

    Attributes:
        folds: its value in each fold; NaN where it is undefined.
        mean: over the folds in which it is defined.
        standard_deviation: over these folds, with Bessel's correction; NaN for a single one.
        out_of_fold: over all images at once, each predicted by the model of its fold.
    """

    folds: tuple[float, ...]
    mean: float
    standard_deviation: float
    out_of_fold: float

    @classmethod
    def of(cls, values: Sequence[float], out_of_fold: float) -> FoldMetric:
        """From the values of the folds."""
        defined = [value for value in values if np.isfinite(value)]
        mean = float(np.mean(defined)) if defined else float("nan")
        spread = float(np.std(defined, ddof=1)) if len(defined) > 1 else float("nan")
        return cls(tuple(values), mean, spread, out_of_fold)

    def to_dict(self) -> dict[str, Any]:
        """Returns strict JSON, in which None stands for undefined."""
        return {
            "mean": finite_or_none(self.mean),
            "standard_deviation": finite_or_none(self.standard_deviation),
            "out_of_fold": finite_or_none(self.out_of_fold),
            "folds": [finite_or_none(value) for value in self.folds],
        }


def metric_values(evaluation: Evaluation) -> dict[str, float]:
    """Returns every metric over all images, by name."""
    estimates = evaluation.estimates()
    if estimates:
        return {name: estimate.value for name, estimate in estimates.items()}
    values = {}
    for name, text in evaluation.metrics().items():  # all that a custom task has to have
        if name not in ("images", "unreadable"):
            try:
                values[name] = float(text.split()[0])
            except ValueError:
                continue
    return values
