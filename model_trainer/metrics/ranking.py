"""How well probabilities rank images: area under the ROC curve and average precision of each class against the rest."""

from __future__ import annotations

import numpy as np

from model_trainer.metrics.chunks import Progress, class_blocks

__all__ = ["one_vs_rest"]


def one_vs_rest(
    labels: np.ndarray, probabilities: np.ndarray, progress: Progress | None = None, max_bytes: int = 256 << 20
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the area under the ROC curve and the average precision of each class, as scikit-learn does.

    Sorting all probabilities of a class and looking up those of its own images is several times faster than building
    the curves, and exact.

    Args:
        labels: int `(num_images,)`, the true class of each image.
        probabilities: float `(num_images, num_classes)`, possibly memory-mapped; read in blocks of classes.
        max_bytes: memory of a block.

    Returns:
        `(auroc, average_precision)`, float64 `(num_classes,)` each. Both are NaN for a class without images and for one
        with a probability that is NaN; the first also for a class that all images have.

    Example:
        >>> from model_trainer.metrics.ranking import one_vs_rest
        >>> labels, probabilities = np.array([0, 1, 1]), np.array([[0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
        >>> auroc, average_precision = one_vs_rest(labels, probabilities)
        >>> auroc.tolist(), average_precision.round(3).tolist()
        ([0.5, 0.5], [0.5, 0.833])
    """
    num_classes = probabilities.shape[1]
    auroc, average_precision = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    images_by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[images_by_class], np.arange(num_classes + 1))
    for classes, block in class_blocks(probabilities, max_bytes):
        for column, index in enumerate(range(classes.start, classes.stop)):
            own = images_by_class[starts[index] : starts[index + 1]]
            if len(own):
                auroc[index], average_precision[index] = _metrics_of_class(block[:, column], own)
        if progress is not None:
            progress("ranking images by class", classes.stop / num_classes)
    return auroc, average_precision


def _metrics_of_class(scores: np.ndarray, own: np.ndarray) -> tuple[float, float]:
    """Returns AUROC and average precision of a class, whose images are at the rows `own`; sorts `scores` in place."""
    positives = np.sort(scores[own])
    scores.sort()
    if np.isnan(scores[-1]):  # NaN is sorted to the end
        return np.nan, np.nan
    num_positives, num_negatives = len(positives), len(scores) - len(positives)
    values, first, images = np.unique(positives, return_index=True, return_counts=True)
    below = np.searchsorted(scores, values, "left")
    tied = np.searchsorted(scores, values, "right") - below
    # The positives at or above each value of a positive, and all images there: recall changes nowhere else.
    true_positives = num_positives - first
    precision = true_positives / (len(scores) - below)
    average_precision = float(np.sum(images * precision) / num_positives)
    if not num_negatives:
        return np.nan, average_precision
    negatives_below, negatives_tied = below - first, tied - images
    wins = float(np.sum(images * (negatives_below + 0.5 * negatives_tied)))
    return wins / (num_positives * num_negatives), average_precision
