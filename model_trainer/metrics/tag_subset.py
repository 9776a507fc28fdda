"""The headline metrics of some of the images."""

from __future__ import annotations

import numpy as np

from model_trainer.metrics.estimate import Estimate
from model_trainer.metrics.multi_label import TagCounts
from model_trainer.metrics.tag_curves import rank_images
from model_trainer.metrics.tag_estimates import exact_match, fraction
from model_trainer.metrics.tag_labels import TagLabels
from model_trainer.metrics.wilson import wilson_interval

__all__ = ["estimate_subset"]


def estimate_subset(
    labels: TagLabels, probabilities: np.ndarray, counts: TagCounts, rows: np.ndarray
) -> dict[str, Estimate]:
    """Computes metrics of some of the images, by name; only the exact match, a proportion, has an interval: Wilson's.

    Args:
        labels, probabilities: of all images.
        counts: of all images, at 0.5 and at the thresholds of the tags.
        rows: int, ascending: indices of the images.
    """
    average_precision = rank_images(labels.take(rows), probabilities, rows=rows).average_precision
    occurs = np.isfinite(average_precision)
    decisions = counts.decisions[-1]
    hits, f1_denominator = decisions.hits[rows].sum(), (decisions.predicted + counts.num_present)[rows].sum()
    is_known = counts.num_known[rows] > 0
    num_known, num_right = is_known.sum(), (exact_match(counts, decisions)[rows] & is_known).sum()
    low, high = wilson_interval(num_right, num_known)
    return {
        "map": Estimate(float(average_precision[occurs].mean()) if occurs.any() else np.nan),
        "micro_f1_at_thresholds": Estimate(float(fraction(2 * hits, f1_denominator))),
        "exact_match_at_thresholds": Estimate(float(fraction(num_right, num_known)), float(low), float(high)),
        "cross_entropy": Estimate(float(fraction(counts.loss[rows].sum(), counts.num_known[rows].sum()))),
    }
