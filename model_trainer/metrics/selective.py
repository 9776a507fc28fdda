"""Selective prediction: the accuracy of the confident predictions, if less probable ones are left to a person."""

from __future__ import annotations

import numpy as np

__all__ = ["THRESHOLDS", "accuracy_above_thresholds"]

THRESHOLDS = (*(step / 20 for step in range(20)), 0.99)


def accuracy_above_thresholds(
    confidence: np.ndarray, correct: np.ndarray, thresholds: tuple[float, ...] = THRESHOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Computes coverage and accuracy of the predictions that are at least as probable as each threshold.

    Args:
        confidence: float `(num_images,)`, probability of each prediction; NaN is below every threshold.
        correct: bool `(num_images,)`.

    Returns:
        `(coverage, accuracy)`, float64 `(num_thresholds,)`: the fraction of images that reach the threshold, and the
        fraction of those that are right, NaN if there is none.

    Example:
        >>> from model_trainer.metrics.selective import accuracy_above_thresholds
        >>> confidence, correct = np.array([0.5, 0.7, 0.9, 0.95]), np.array([False, True, False, True])
        >>> coverage, accuracy = accuracy_above_thresholds(confidence, correct, thresholds=(0.0, 0.6, 0.99))
        >>> coverage.tolist(), accuracy.round(2).tolist()
        ([1.0, 0.75, 0.0], [0.5, 0.67, nan])
    """
    finite_confidence = np.nan_to_num(confidence, nan=-1.0)
    order = np.argsort(finite_confidence, kind="stable")
    # In the precision of the probabilities, in which 0.95 reaches a threshold of 0.95.
    reached = np.searchsorted(finite_confidence[order], np.asarray(thresholds, finite_confidence.dtype), "left")
    counts = len(order) - reached
    hits = np.concatenate([np.cumsum(correct[order][::-1])[::-1], [0]])[reached]
    accuracy = np.divide(hits, counts, out=np.full(len(thresholds), np.nan), where=counts > 0)
    return counts / max(len(order), 1), accuracy
