"""Confidence intervals of the ranking metrics, by recomputing them for resampled images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model_trainer.metrics.bootstrap import RESAMPLES, bootstrap_interval

__all__ = ["macro_intervals"]

_MIN_RESAMPLES = 200
_MAX_STEPS = 10_000_000  # images x classes x resamples: about a second


def macro_intervals(
    labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Computes the intervals of the macro-averaged area under the ROC curve and average precision.

    The images are sorted only once: a resample counts each image as often as it was drawn. Still, this takes time in
    proportion to images, classes and resamples, so larger tables get fewer resamples, and those of more than 50,000
    probabilities get no intervals, which would be narrow.

    Args:
        labels: int `(num_images,)`, the true class of each image.
        probabilities: float `(num_images, num_classes)`.

    Returns:
        `(low, high)` of each; None for a table that is empty, too large, or has a NaN.

    Example:
        >>> from model_trainer.metrics.ranking_intervals import macro_intervals
        >>> labels = np.arange(100) % 2
        >>> probabilities = np.eye(2)[np.where(np.arange(100) < 90, labels, 1 - labels)]  # 90 of 100 are right
        >>> auroc, average_precision = macro_intervals(labels, probabilities)
        >>> print("{:.2f} to {:.2f}".format(*auroc))
        0.84 to 0.96
    """
    resamples = min(RESAMPLES, _MAX_STEPS // max(probabilities.size, 1))
    if not len(labels) or resamples < _MIN_RESAMPLES or np.isnan(probabilities).any():
        return None
    rankings = [_rank(labels == index, probabilities[:, index]) for index in np.unique(labels)]

    def statistic(counts: np.ndarray) -> np.ndarray:
        values = np.stack([_metrics_of_resamples(ranking, counts) for ranking in rankings])  # (classes, b, 2)
        defined = ~np.isnan(values)
        total, classes = np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0)
        return np.divide(total, classes, out=np.full(total.shape, np.nan), where=classes > 0)

    low, high = bootstrap_interval(statistic, len(labels), seed=seed, resamples=resamples)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


class _Ranking(NamedTuple):
    order: np.ndarray  # images by ascending probability
    starts: np.ndarray  # where each group of equal probabilities starts in it
    own: np.ndarray  # whether each image in this order is of the class


def _rank(own: np.ndarray, scores: np.ndarray) -> _Ranking:
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return _Ranking(order, starts, own[order])


def _metrics_of_resamples(ranking: _Ranking, counts: np.ndarray) -> np.ndarray:
    """float64 `(b, 2)`: the area and the average precision of each resample; NaN without images of the class."""
    ordered = counts[:, ranking.order]
    images = np.add.reduceat(ordered, ranking.starts, axis=1, dtype=np.int64)
    own = np.add.reduceat(ordered * ranking.own, ranking.starts, axis=1, dtype=np.int64)
    others = images - own
    num_own, num_others = own.sum(axis=1), others.sum(axis=1)
    others_below = np.cumsum(others, axis=1) - others
    wins = np.einsum("ij,ij->i", own, others_below + 0.5 * others)
    # Of the images at or above each group, those of the class.
    own_above = num_own[:, None] - np.cumsum(own, axis=1) + own
    above = own_above + num_others[:, None] - others_below
    precision = np.divide(own_above, above, out=np.zeros(own.shape), where=above > 0)
    sums = np.stack([wins, np.einsum("ij,ij->i", own, precision)], axis=1)
    totals = np.stack([num_own * num_others, num_own], axis=1)
    return np.divide(sums, totals, out=np.full(sums.shape, np.nan), where=totals > 0)
