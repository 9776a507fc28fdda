"""Metrics of the order in which a model ranks the tags of each image. Unknown tags are left out, image by image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model_trainer.metrics.tag_labels import TagEntries

__all__ = ["LabelRanking", "rank_tags"]

_BLOCK_BYTES = 32 << 20


class LabelRanking(NamedTuple):
    """How well the tags of each image are ranked, float64 `(num_images,)` each.

    Attributes:
        coverage: how many of the most probable tags include all true ones; 0 without a true tag.
        average_precision: over the true tags, the mean fraction of true ones among the tags at least as probable; 1 if
            none or all of the known tags are true.
        loss: fraction of the pairs of a true and a false tag in which the false one is at least as probable; 0 if none
            or all of the known tags are true.
        hits_at: for each k, how many of the k most probable tags are true; among equally probable tags the first ones.
    """

    coverage: np.ndarray
    average_precision: np.ndarray
    loss: np.ndarray
    hits_at: dict[int, np.ndarray]


def rank_tags(
    probabilities: np.ndarray, present: TagEntries, num_known: np.ndarray, ks: tuple[int, ...] = (1, 3, 5)
) -> LabelRanking:
    """Ranks the tags of each image; the metrics equal scikit-learn's on the known tags of each image alone.

    Args:
        probabilities: float32 `(num_images, num_tags)`; unknown tags must be below all others, such as -1.
        present: the tags that the images have.
        num_known: int `(num_images,)`, number of known tags of each image.
        ks: numbers of most probable tags for `hits_at`.

    Example:
        >>> from model_trainer.metrics.label_ranking import rank_tags
        >>> from model_trainer.metrics.tag_labels import TagLabels
        >>> present = TagLabels.of_dense(np.float32([[1, 0, 1]])).entries().present
        >>> ranking = rank_tags(np.float32([[0.9, 0.7, 0.6]]), present, num_known=np.array([3]))
        >>> ranking.coverage.tolist(), ranking.average_precision.round(3).tolist(), ranking.loss.tolist()
        ([3.0], [0.833], [0.5])
    """
    num_images, num_tags = probabilities.shape
    rows, tags = present.rows, present.tags
    scores = probabilities[rows, tags]
    ascending = np.sort(probabilities, axis=1)
    at_least = num_tags - _search(ascending, rows, scores, strict=False)
    above = num_tags - _search(ascending, rows, scores, strict=True)
    true_at_least = _true_at_least(rows, scores)
    num_true = np.bincount(rows, minlength=num_images)
    num_false = num_known - num_true
    coverage = np.zeros(num_images)
    np.maximum.at(coverage, rows, at_least)
    is_trivial = (num_true == 0) | (num_false == 0)
    precision = np.bincount(rows, true_at_least / at_least, num_images) / np.maximum(num_true, 1)
    swapped = np.bincount(rows, at_least - true_at_least, num_images) / np.maximum(num_true * num_false, 1)
    position = above + _earlier_ties(probabilities, rows, tags, scores, (at_least > above + 1) & (above < max(ks)))
    return LabelRanking(
        coverage,
        np.where(is_trivial, 1.0, precision),
        np.where(is_trivial, 0.0, swapped),
        {k: np.bincount(rows[position < k], minlength=num_images) for k in ks},
    )


def _search(ascending: np.ndarray, rows: np.ndarray, scores: np.ndarray, *, strict: bool) -> np.ndarray:
    """Returns for each score how many values of its sorted row are below it; with `strict` also those equal to it.

    It is `np.searchsorted`, each score in a row of its own.
    """
    low, high = np.zeros(len(rows), np.int64), np.full(len(rows), ascending.shape[1], np.int64)
    for _ in range(int(ascending.shape[1]).bit_length()):
        middle = (low + high) // 2
        value = ascending[rows, np.minimum(middle, ascending.shape[1] - 1)]
        goes_right = ((value <= scores) if strict else (value < scores)) & (low < high)
        low, high = np.where(goes_right, middle + 1, low), np.where(goes_right, high, middle)
    return low


def _true_at_least(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns for each true tag how many true tags of its image are at least as probable, itself included."""
    order = np.lexsort((-scores, rows))
    sorted_rows, sorted_scores = rows[order], scores[order]
    is_last = np.ones(len(order), bool)  # of equally probable tags of an image
    is_last[:-1] = (np.diff(sorted_rows) != 0) | (np.diff(sorted_scores) != 0)
    last = np.flatnonzero(is_last)[np.cumsum(is_last) - is_last]
    counts = np.empty(len(order), np.int64)
    counts[order] = last - np.searchsorted(sorted_rows, sorted_rows) + 1
    return counts


def _earlier_ties(
    probabilities: np.ndarray, rows: np.ndarray, tags: np.ndarray, scores: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Returns for each true tag how many equally probable tags of its image have a lower index; 0 if not wanted."""
    ties = np.zeros(len(rows), np.int64)
    entries = np.flatnonzero(wanted)
    step = max(1, _BLOCK_BYTES // (4 * probabilities.shape[1]))
    for start in range(0, len(entries), step):
        block = entries[start : start + step]
        is_tied = probabilities[rows[block]] == scores[block, None]
        ties[block] = (is_tied & (np.arange(probabilities.shape[1]) < tags[block, None])).sum(axis=1)
    return ties
