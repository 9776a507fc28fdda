"""The predictions of a whole validation, for metrics that cannot be had from sums."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from model_trainer.tasks.task import BatchPredictions, Task

__all__ = ["PredictionCollector"]


class PredictionCollector:
    """Keeps what validation steps predict, if the task wants it: 8 bytes for each image and class."""

    def __init__(self, task: Task, strategy: tf.distribute.Strategy) -> None:
        self._task = task
        self._strategy = strategy
        self._parts: list[BatchPredictions] = []

    def add(self, predictions: BatchPredictions) -> None:
        """Takes one step's predictions from all replicas; waits for the device."""
        if not self._task.wants_predictions:
            return
        whole = tf.nest.map_structure(self._of_all_replicas, predictions)
        counts = whole.weights > 0  # unreadable images, and those that only keep a replica busy, do not
        self._parts.append(tf.nest.map_structure(lambda column: column[counts], whole))

    def metrics(self) -> dict[str, float]:
        """The task's collected metrics."""
        return self._task.full_pass_results(self._whole()) if self._parts else {}

    def thresholds(self) -> tuple[float, ...] | None:
        """The task's thresholds, fitted to these predictions."""
        return self._task.fit_thresholds(self._whole()) if self._parts else None

    def _of_all_replicas(self, values: tf.Tensor) -> np.ndarray:
        return np.concatenate([np.asarray(part) for part in self._strategy.experimental_local_results(values)])

    def _whole(self) -> BatchPredictions:
        self._parts = [tf.nest.map_structure(lambda *columns: np.concatenate(columns), *self._parts)]
        return self._parts[0]
