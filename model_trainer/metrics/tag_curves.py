"""Average precision, AUROC and precision-recall curves of tags, read a block of tags at a time.

Each tag is judged on the images in which it is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from model_trainer.metrics.chunks import Progress, class_blocks
from model_trainer.metrics.tag_labels import TagLabels

__all__ = ["Curve", "TagCurves", "rank_images"]

MAX_POINTS = 100


class Curve(NamedTuple):
    """A precision-recall curve, by ascending recall; float64 `(points,)` each, at most 100 points."""

    recall: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class TagCurves:
    """How well the images are ranked by each tag.

    Attributes:
        average_precision: float64 `(num_tags,)`, NaN for a tag without an image.
        auroc: float64 `(num_tags,)`, NaN for a tag that all or none of its known images have.
        curves: of the tags in `curves_of`, by index; see `rank_images`.
        influence: None, or float64 `(2 + n, num_images)`: how much the mean average precision, the macro AUROC, and the
            macro F1 at each of n thresholds change with the weight of each image; see `rank_images`.
    """

    average_precision: np.ndarray
    auroc: np.ndarray
    curves: dict[int, Curve] = field(default_factory=dict)
    influence: np.ndarray | None = None


def rank_images(
    labels: TagLabels,
    probabilities: np.ndarray,
    curves_of: frozenset[int] = frozenset(),
    f1_at: tuple[np.ndarray, ...] | None = None,
    progress: Progress | None = None,
    rows: np.ndarray | None = None,
) -> TagCurves:
    """Ranks the images by the probability of each tag; the metrics equal scikit-learn's on the known images.

    A probability that is NaN counts as 0.

    Args:
        labels: the true and the unknown tags.
        probabilities: float `(num_images, num_tags)`, may be memory-mapped.
        curves_of: indices of the tags whose curves are returned. The points are points of scikit-learn's curve: the
            start at recall 0, and at most 99, evenly chosen, at probabilities of true images.
        f1_at: None, or arrays of thresholds of the tags, float `(num_tags,)` each. Then `influence` is
            computed: the derivatives of the mean average precision, of the macro AUROC, and of the macro F1 at these
            thresholds with respect to the weight of each image, at weight 1. A resample changes the metric by about
            `(counts - 1) @ influence`, the infinitesimal jackknife (https://doi.org/10.1137/1.9781611970319).
        progress: called with what is being computed, and the fraction that is done.
        rows: int, ascending: the rows of `probabilities` to which `labels` belong; None for all.

    Example:
        >>> from model_trainer.metrics.tag_curves import rank_images
        >>> from model_trainer.metrics.tag_labels import TagLabels
        >>> labels = TagLabels.of_dense(np.float32([[1, 0], [0, 0], [1, 0]]))
        >>> curves = rank_images(labels, np.float32([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5]]))
        >>> curves.average_precision.round(3).tolist(), curves.auroc.tolist()
        ([0.833, nan], [0.5, nan])
    """
    num_images, num_tags = len(labels), labels.num_tags
    entries = labels.entries()
    present_rows, unknown_rows = labels.rows_by_tag(entries.present), labels.rows_by_tag(entries.unknown)
    average_precision, auroc = np.full(num_tags, np.nan), np.full(num_tags, np.nan)
    curves: dict[int, Curve] = {}
    totals = np.zeros((2 + len(f1_at), num_images)) if f1_at is not None else None
    num_f1 = np.zeros(len(f1_at or ()), np.int64)
    for tags, block in class_blocks(probabilities, rows=rows):
        for tag, scores in enumerate(block.T, start=tags.start):
            present, unknown = present_rows[tag], unknown_rows[tag]
            if num_images and np.isnan(scores.min()):
                scores = np.nan_to_num(scores)
            if totals is not None:
                for index, thresholds in enumerate(f1_at or ()):
                    num_f1[index] += _add_f1_influence(totals[2 + index], scores, thresholds[tag], present, unknown)
            if not len(present):
                continue
            ranks = _Ranks.of(np.delete(scores, unknown) if len(unknown) else scores, scores[present])
            average_precision[tag], auroc[tag] = ranks.average_precision(), ranks.auroc()
            if tag in curves_of:
                curves[tag] = ranks.curve()
            if totals is not None:
                _add_ranking_influence(totals[:2], scores, ranks, present, unknown)
        if progress is not None:
            progress("metrics of the tags", tags.stop / num_tags)
    if totals is not None:
        divisors = np.array([np.isfinite(average_precision).sum(), np.isfinite(auroc).sum(), *num_f1])
        totals /= np.maximum(divisors, 1)[:, None]
    return TagCurves(average_precision, auroc, curves, totals)


class _Ranks(NamedTuple):
    """Where the true images of a tag are in the order of all its known images.

    Attributes:
        scores: float32 `(num_true,)`, ascending.
        at_least: int64 `(num_true,)`, number of images with at least that probability.
        above: int64 `(num_true,)`, number of images with a higher one.
        true_at_least, true_above: the same, counting only true images.
        num_known: number of images.
    """

    scores: np.ndarray
    at_least: np.ndarray
    above: np.ndarray
    true_at_least: np.ndarray
    true_above: np.ndarray
    num_known: int

    @classmethod
    def of(cls, known_scores: np.ndarray, true_scores: np.ndarray) -> _Ranks:
        scores, known = np.sort(true_scores), np.sort(known_scores)
        return cls(
            scores,
            len(known) - np.searchsorted(known, scores, "left"),
            len(known) - np.searchsorted(known, scores, "right"),
            len(scores) - np.searchsorted(scores, scores, "left"),
            len(scores) - np.searchsorted(scores, scores, "right"),
            len(known),
        )

    def average_precision(self) -> float:
        return float(np.mean(self.true_at_least / self.at_least))

    def auroc(self) -> float:
        num_negatives = self.num_known - len(self.scores)
        if not num_negatives:
            return float("nan")
        negatives_at_least, negatives_above = self.at_least - self.true_at_least, self.above - self.true_above
        return float(1.0 - np.mean(negatives_at_least + negatives_above) / (2.0 * num_negatives))  # a tie counts half

    def curve(self) -> Curve:
        first_of_equals = np.flatnonzero(np.diff(self.scores, prepend=-np.inf) > 0)[::-1]  # highest probability first
        chosen = np.linspace(0, len(first_of_equals) - 1, min(len(first_of_equals), MAX_POINTS - 1)).round().astype(int)
        points = first_of_equals[chosen]
        recall = self.true_at_least[points] / len(self.scores)
        precision = self.true_at_least[points] / self.at_least[points]
        return Curve(np.concatenate([[0.0], recall]), np.concatenate([[1.0], precision]))


def _add_ranking_influence(
    totals: np.ndarray, scores: np.ndarray, ranks: _Ranks, present: np.ndarray, unknown: np.ndarray
) -> None:
    """Adds the derivatives of a tag's average precision and AUROC with respect to the weight of each image."""
    num_true, num_negatives = len(present), ranks.num_known - len(present)
    not_above = np.searchsorted(ranks.scores, scores, "right")  # number of true images that are not above each image
    precision = ranks.true_at_least / ranks.at_least
    # A true image i contributes precision(i) = true(i) / all(i), which every image at or above it changes: by -1 /
    # all(i) * precision(i), and a true one by another 1 / all(i).
    effect_of_any = np.concatenate([[0.0], np.cumsum(precision / ranks.at_least)])
    effect_of_true = np.concatenate([[0.0], np.cumsum(1.0 / ranks.at_least)])
    change = effect_of_any[not_above]
    change *= -1.0 / num_true
    change[unknown] = 0.0
    own = not_above[present]
    change[present] += (effect_of_true[own] + precision[own - 1] - precision.mean()) / num_true
    totals[0] += change
    if not num_negatives:
        return
    auroc = ranks.auroc()
    # A negative image loses half a win to each true image that it ties with, and a whole one to those below it.
    value = np.append(ranks.scores, np.nan)[not_above - 1]  # the highest true probability that is not above
    ties = np.append(num_true - ranks.true_above - np.searchsorted(ranks.scores, ranks.scores, "left"), 0)
    lost = np.where(value == scores, not_above - ties[not_above - 1] / 2.0, not_above)
    change = (1.0 - lost / num_true - auroc) / num_negatives
    change[unknown] = 0.0
    negatives_at_least = (ranks.at_least - ranks.true_at_least)[own - 1]
    negatives_above = (ranks.above - ranks.true_above)[own - 1]
    change[present] = (1.0 - (negatives_at_least + negatives_above) / (2.0 * num_negatives) - auroc) / num_true
    totals[1] += change


def _add_f1_influence(
    total: np.ndarray, scores: np.ndarray, threshold: float, present: np.ndarray, unknown: np.ndarray
) -> int:
    """Adds the derivative of a tag's F1 with respect to the weight of each image; returns 1 if the tag has an F1."""
    predicted = scores >= threshold
    predicted[unknown] = False
    hits = present[predicted[present]]
    divisor = int(np.count_nonzero(predicted)) + len(present)
    if not divisor:
        return 0
    f1 = 2.0 * len(hits) / divisor
    # F1 = 2 hits / (predicted + present).
    total[predicted] -= f1 / divisor
    total[present] -= f1 / divisor
    total[hits] += 2.0 / divisor
    return 1
