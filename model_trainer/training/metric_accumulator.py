"""Accumulates the sums of many steps, and computes metrics from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from model_trainer.tasks.metrics import AdditiveMetric
from model_trainer.training.step_types import LOSS

__all__ = ["MetricAccumulator"]


class MetricAccumulator:
    """Adds up the sums that steps return; waits for the device only when metrics are read.

    Args:
        metrics: the additive metrics of the task.
    """

    def __init__(self, metrics: tuple[AdditiveMetric, ...]) -> None:
        self._metrics = metrics
        self._pending: list[dict[str, tf.Tensor]] = []
        self._sums: dict[str, np.ndarray] = {}

    def add(self, sums: dict[str, tf.Tensor]) -> None:
        """Adds the sums of a step."""
        self._pending.append(sums)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns float64 sums over all steps so far, by name."""
        for sums in self._pending:
            for name, value in sums.items():
                # float64, because float32 stops counting at 16.7 million.
                self._sums[name] = self._sums.get(name, 0.0) + np.asarray(value, np.float64)
        self._pending = []
        return dict(self._sums)

    def get_state(self) -> dict[str, np.ndarray]:
        """Returns the sums, for a checkpoint."""
        return self.sums()

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores the result of `get_state`."""
        self._pending, self._sums = [], dict(state)

    def metrics(self) -> dict[str, float]:
        """Returns loss and metrics over all steps so far; NaN if no example counted."""
        if not self.sums():
            return dict.fromkeys([LOSS, *(metric.name for metric in self._metrics)], float("nan"))
        loss, weight = self._sums[LOSS]
        metrics = {LOSS: float(loss / weight) if weight > 0 else float("nan")}
        return metrics | {metric.name: metric.value(self._sums[metric.name]) for metric in self._metrics}
