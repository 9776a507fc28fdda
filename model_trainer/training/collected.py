"""The predictions of a whole validation, for figures that cannot be had from sums."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from model_trainer.tasks.task import Task
from model_trainer.training.step_parts import Predictions

__all__ = ["Collected"]


class Collected:
    """Keeps what validation steps predict, if the task wants it: 8 bytes for each image and class."""

    def __init__(self, task: Task, strategy: tf.distribute.Strategy) -> None:
        self._task = task
        self._strategy = strategy
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, predictions: Predictions) -> None:
        """Takes one step's predictions from all replicas; waits for the device."""
        if not self._task.wants_predictions:
            return
        of_replica = [self._strategy.experimental_local_results(each) for each in predictions]
        targets, probabilities, weights = (np.concatenate([np.asarray(part) for part in parts]) for parts in of_replica)
        counts = weights > 0  # unreadable images, and those that only keep a replica busy, do not
        self._parts.append((targets[counts], probabilities[counts], weights[counts]))

    def figures(self) -> dict[str, float]:
        """The task's collected metrics."""
        if not self._parts:
            return {}
        return {metric.name: metric.compute(*self._whole()) for metric in self._task.collected_metrics}

    def thresholds(self) -> tuple[float, ...] | None:
        """The task's thresholds, fitted to these predictions."""
        return self._task.fit_thresholds(*self._whole()) if self._parts else None

    def _whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        targets, probabilities, weights = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._parts = [(targets, probabilities, weights)]
        return targets, probabilities, weights
