"""Metrics of predicted classes with their intervals: bootstrap over all images, Wilson's for each class."""

from __future__ import annotations

import numpy as np

from model_trainer.metrics.bootstrap import bootstrap_interval
from model_trainer.metrics.chunks import Progress
from model_trainer.metrics.classification import ClassCounts, ConfusionMatrix, class_metrics, overall_metrics
from model_trainer.metrics.estimate import Estimate
from model_trainer.metrics.image_scores import ImageScores
from model_trainer.metrics.wilson import wilson_interval

__all__ = ["class_estimates", "overall_estimates"]


def overall_estimates(
    scores: ImageScores, confusion: ConfusionMatrix, progress: Progress | None = None
) -> dict[str, Estimate]:
    """Computes the metrics over all images, by name: those of `overall_metrics`, log loss, Brier and top-5 accuracy.

    All intervals come from the same resamples. There is no `top_5_accuracy` with fewer than 6 classes.

    Args:
        scores, confusion: of the same images.

    Example:
        >>> from model_trainer.metrics.classification import ConfusionMatrix
        >>> from model_trainer.metrics.classification_estimates import overall_estimates
        >>> from model_trainer.metrics.image_scores import score_images
        >>> labels = np.arange(100) % 2
        >>> probabilities = np.eye(2)[np.where(np.arange(100) < 90, labels, 1 - labels)]  # 90 of 100 are right
        >>> scores = score_images(labels, probabilities)
        >>> str(overall_estimates(scores, ConfusionMatrix.of(labels, scores.predicted, 2))["accuracy"])
        '0.9000 (0.8400 to 0.9600)'
    """
    means = {"log_loss": scores.loss, "brier": scores.brier}
    if confusion.num_classes > 5:
        means["top_5_accuracy"] = scores.true_rank < 5
    by_image = np.stack([np.asarray(values, np.float64) for values in means.values()], axis=1)
    num_images, num_cells = len(by_image), len(confusion.images)
    overall = {name: float(value[0]) for name, value in overall_metrics(confusion.counts()).items()}
    averages = by_image.mean(axis=0) if num_images else np.full(len(means), np.nan)

    def statistic(counts: np.ndarray) -> np.ndarray:
        cells = np.stack([np.bincount(confusion.cell_of_image, row, num_cells) for row in counts])
        resampled = overall_metrics(confusion.counts(cells)).values()
        return np.concatenate([np.stack(list(resampled), axis=1), counts @ by_image / max(num_images, 1)], axis=1)

    if progress is not None:
        progress("resampling images", 0.0)
    low, high = bootstrap_interval(statistic, num_images)
    if progress is not None:
        progress("resampling images", 1.0)
    values = {**overall, **dict(zip(means, averages.tolist(), strict=True))}
    return {name: Estimate(values[name], float(low[index]), float(high[index])) for index, name in enumerate(values)}


def class_estimates(counts: ClassCounts) -> dict[str, dict[str, np.ndarray]]:
    """Computes the metrics of each class, `{name: {"value": ..., "low": ..., "high": ...}}`, `(num_classes,)` each.

    Precision, recall and specificity are proportions of images and have Wilson's interval; F1 has none.

    Args:
        counts: from `ConfusionMatrix.counts`.

    Example:
        >>> from model_trainer.metrics.classification import ConfusionMatrix
        >>> from model_trainer.metrics.classification_estimates import class_estimates
        >>> confusion = ConfusionMatrix.of(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
        >>> {key: values.round(2).tolist() for key, values in class_estimates(confusion.counts())["recall"].items()}
        {'value': [0.5, 1.0], 'low': [0.09, 0.21], 'high': [0.91, 1.0]}
    """
    support, predicted, hits = counts.support[0], counts.predicted[0, :-1], counts.hits[0]
    negatives = support.sum() - support
    proportions = {
        "precision": (hits, predicted),
        "recall": (hits, support),
        "specificity": (negatives - predicted + hits, negatives),
    }
    columns = {name: {"value": values[0]} for name, values in class_metrics(counts).items()}
    for name, (successes, totals) in proportions.items():
        columns[name]["low"], columns[name]["high"] = wilson_interval(successes, totals)
    return columns
