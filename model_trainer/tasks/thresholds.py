"""Decision thresholds of a multi-label classifier: for each class the one with the highest F1."""

from __future__ import annotations

import numpy as np

__all__ = ["best_thresholds"]


def best_thresholds(targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """Returns the threshold with the highest F1 for each class, midway to the next lower probability.

    A class that occurs in none or all of the images in which it is known gets 0.5.

    Args:
        targets: float `(num_images, num_classes)`; 0.5 or more is present, NaN unknown.
        probabilities: float `(num_images, num_classes)`.
        weights: float `(num_images,)`.
    """
    return tuple(
        _best_threshold(targets[:, index], probabilities[:, index], weights) for index in range(targets.shape[1])
    )


def _best_threshold(targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    from sklearn.metrics import precision_recall_curve

    known = ~np.isnan(targets) & (weights > 0)
    present = targets[known] >= 0.5
    if present.all() or not present.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(present, probabilities[known], sample_weight=weights[known])
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    best = int(np.flatnonzero(f1 == f1.max())[-1])  # among equals the highest, which predicts the fewest tags
    next_lower = thresholds[best - 1] if best else 0.0
    return float(np.float32((thresholds[best] + next_lower) / 2))
