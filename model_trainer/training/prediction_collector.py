"""Collects the predictions of a validation, for metrics over all of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from model_trainer.tasks.task import BatchPredictions, Task

__all__ = ["PredictionCollector"]


class PredictionCollector:
    """Collects the predictions of validation steps if the task needs them: 8 bytes per image and class."""

    def __init__(self, task: Task, strategy: tf.distribute.Strategy) -> None:
        self._task = task
        self._strategy = strategy
        self._batches: list[BatchPredictions] = []

    def add(self, predictions: BatchPredictions) -> None:
        """Adds the predictions of a step from all replicas; waits for the device."""
        if not self._task.wants_predictions:
            return
        batch = tf.nest.map_structure(self._concatenate_replicas, predictions)
        is_counted = batch.weights > 0  # neither unreadable images nor the padding of a replica's shard
        self._batches.append(tf.nest.map_structure(lambda column: column[is_counted], batch))

    def metrics(self) -> dict[str, float]:
        """Returns the full-pass metrics of the task, by name."""
        return self._task.full_pass_results(self._concatenated()) if self._batches else {}

    def thresholds(self) -> tuple[float, ...] | None:
        """Returns the thresholds that the task fits to the predictions; None if it fits none."""
        return self._task.fit_thresholds(self._concatenated()) if self._batches else None

    def _concatenate_replicas(self, values: tf.Tensor) -> np.ndarray:
        return np.concatenate([np.asarray(shard) for shard in self._strategy.experimental_local_results(values)])

    def _concatenated(self) -> BatchPredictions:
        self._batches = [tf.nest.map_structure(lambda *columns: np.concatenate(columns), *self._batches)]
        return self._batches[0]
