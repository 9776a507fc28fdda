"""Sums of many steps, and the metrics they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from model_trainer.tasks.metrics import AdditiveMetric
from model_trainer.training.step_types import LOSS

__all__ = ["MetricAccumulator"]


class MetricAccumulator:
    """Adds up what steps return; waits for the device only when metrics are asked for.

    Args:
        metrics: of the task, those that are counted.
    """

    def __init__(self, metrics: tuple[AdditiveMetric, ...]) -> None:
        self._metrics = metrics
        self._waiting: list[dict[str, tf.Tensor]] = []
        self._sums: dict[str, np.ndarray] = {}

    def add(self, sums: dict[str, tf.Tensor]) -> None:
        """Takes one step's sums."""
        self._waiting.append(sums)

    def sums(self) -> dict[str, np.ndarray]:
        """float64 sums of everything added so far, by name."""
        for sums in self._waiting:
            for name, value in sums.items():
                # float64, because float32 stops counting at 16.7 million.
                self._sums[name] = self._sums.get(name, 0.0) + np.asarray(value, np.float64)
        self._waiting = []
        return dict(self._sums)

    def get_state(self) -> dict[str, np.ndarray]:
        """The sums, for a checkpoint."""
        return self.sums()

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `get_state` gave."""
        self._waiting, self._sums = [], dict(state)

    def metrics(self) -> dict[str, float]:
        """Loss and metrics over everything added so far; NaN for what nothing was counted in."""
        if not self.sums():
            return dict.fromkeys([LOSS, *(metric.name for metric in self._metrics)], float("nan"))
        loss, weight = self._sums[LOSS]
        metrics = {LOSS: float(loss / weight) if weight > 0 else float("nan")}
        return metrics | {metric.name: metric.value(self._sums[metric.name]) for metric in self._metrics}
