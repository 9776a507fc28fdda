"""Counts right and wrong tags of images in chunks, so that neither labels nor predictions are ever dense as a whole.

Unknown labels are masked: they count neither as right nor as wrong, and the metrics of an image are those of its known
tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model_trainer.metrics.chunks import Progress, row_chunks
from model_trainer.metrics.label_ranking import LabelRanking, rank_tags
from model_trainer.metrics.tag_labels import TagEntries, TagLabels

__all__ = ["KS", "Decisions", "TagCounts", "WorstTags", "count_tags"]

KS = (1, 3, 5)  # of precision and recall at k

_CHUNK_BYTES = 32 << 20  # of predictions; temporary arrays are several times as large
_MIN_PROBABILITY = 1e-7  # so that a mistake made with certainty costs 16 nats, not infinitely many


@dataclass(frozen=True, eq=False)
class Decisions:
    """Predicted tags (those that reach their thresholds) against the true ones, over known labels.

    Attributes:
        thresholds: float32 `(num_tags,)`, minimum probability of each tag.
        hits, predicted: int32 `(num_images,)`, number of tags of each image that are predicted and true, and predicted.
        tag_hits, tag_predicted: int64 `(num_tags,)`, the same for each tag over the images.
        is_hit: bool, for each entry of `labels.entries().present`, whether it is predicted.
    """

    thresholds: np.ndarray
    hits: np.ndarray
    predicted: np.ndarray
    tag_hits: np.ndarray
    tag_predicted: np.ndarray
    is_hit: np.ndarray


class WorstTags(NamedTuple):
    """One tag of each image, or one image of each tag: the one with the most extreme probability.

    Attributes:
        which: int32, index of the tag (or of the image); -1 if there is none.
        probability: float32, NaN if there is none.
    """

    which: np.ndarray
    probability: np.ndarray

    @classmethod
    def none(cls, size: int) -> WorstTags:
        """Returns `size` entries without a tag."""
        return cls(np.full(size, -1, np.int32), np.full(size, np.nan, np.float32))


@dataclass(frozen=True, eq=False)
class TagCounts:
    """The counts of right and wrong tags, and the scores that are computed in the same pass over the predictions.

    Attributes:
        num_known, num_present: int32 `(num_images,)`, number of known tags of each image, and of those that it has.
        tag_known, tag_present: int64 `(num_tags,)`, number of images in which each tag is known, and that have it.
        loss: float64 `(num_images,)`, the sum of the binary cross-entropies of the known tags, in nats.
        ranking: the ranking metrics of each image.
        decisions: for each of the given thresholds.
        present_probability: float32, for each entry of `labels.entries().present`, its predicted probability.
        wrong, missed: for each image its most probable wrongly predicted tag, and its least probable missed one, at
            the last thresholds.
        wrong_image, missed_image: for each tag the image in which it is wrongly predicted with the highest
            probability, and the one in which it is missed with the lowest.
    """

    num_known: np.ndarray
    num_present: np.ndarray
    tag_known: np.ndarray
    tag_present: np.ndarray
    loss: np.ndarray
    ranking: LabelRanking
    decisions: tuple[Decisions, ...]
    present_probability: np.ndarray
    wrong: WorstTags
    missed: WorstTags
    wrong_image: WorstTags
    missed_image: WorstTags


def count_tags(
    labels: TagLabels,
    probabilities: np.ndarray,
    thresholds: tuple[np.ndarray, ...],
    progress: Progress | None = None,
) -> TagCounts:
    """Compares the predictions of all images with their tags, in one pass.

    A probability that is NaN, of a model that has diverged, counts as 0, and makes the loss of its image NaN.

    Args:
        labels: the true and the unknown tags.
        probabilities: float `(num_images, num_tags)`, may be memory-mapped.
        thresholds: minimum probability of each tag, float `(num_tags,)`; one array for each of `TagCounts.decisions`.
        progress: called with what is being computed, and the fraction that is done.

    Example:
        >>> from model_trainer.metrics.multi_label import count_tags
        >>> from model_trainer.metrics.tag_labels import TagLabels
        >>> labels = TagLabels.of_dense(np.float32([[1, 0, 1], [0, np.nan, 1]]))
        >>> probabilities = np.float32([[0.9, 0.7, 0.6], [0.2, 0.8, 0.1]])
        >>> counts = count_tags(labels, probabilities, (np.full(3, 0.5),))
        >>> counts.decisions[0].hits.tolist(), counts.decisions[0].predicted.tolist(), counts.num_present.tolist()
        ([2, 0], [3, 0], [2, 1])
    """
    num_images, num_tags = len(labels), labels.num_tags
    entries = labels.entries()
    present = entries.present
    present_starts = np.searchsorted(present.rows, np.arange(num_images + 1))
    num_known = num_tags - np.bincount(entries.unknown.rows, minlength=num_images)
    loss = np.zeros(num_images)
    coverage, average_precision, ranking_loss = np.zeros((3, num_images))
    hits_at = {k: np.zeros(num_images, np.int32) for k in KS}
    decisions = tuple(_empty_decisions(each, num_images, num_tags, len(present.rows)) for each in thresholds)
    present_probability = np.zeros(len(present.rows), np.float32)
    wrong, wrong_image = WorstTags.none(num_images), WorstTags.none(num_tags)
    for rows in row_chunks(probabilities, _CHUNK_BYTES):
        chunk = labels.entries(rows)
        true, unknown = chunk.present, chunk.unknown
        table = np.array(probabilities[rows], np.float32)
        table[unknown.rows, unknown.tags] = 0.0  # adds nothing to the loss
        loss[rows] = _cross_entropy(table, chunk)
        if np.isnan(loss[rows]).any():
            np.nan_to_num(table, copy=False)
        table[unknown.rows, unknown.tags] = -1.0  # below every threshold and every other tag
        span = slice(present_starts[rows.start], present_starts[rows.stop])
        present_probability[span] = table[true.rows, true.tags]
        chunk_ranking = rank_tags(table, true, num_known[rows], KS)
        coverage[rows], average_precision[rows], ranking_loss[rows] = chunk_ranking[:3]
        for k in KS:
            hits_at[k][rows] = chunk_ranking.hits_at[k]
        is_predicted = np.zeros((0, 0), bool)
        for decision in decisions:
            is_predicted = table >= decision.thresholds
            is_hit = is_predicted[true.rows, true.tags]
            decision.is_hit[span] = is_hit
            decision.hits[rows] = np.bincount(true.rows[is_hit], minlength=len(table))
            decision.predicted[rows] = np.count_nonzero(is_predicted, axis=1)
            decision.tag_hits[:] += np.bincount(true.tags[is_hit], minlength=num_tags)
            decision.tag_predicted[:] += np.count_nonzero(is_predicted, axis=0)
        is_predicted[true.rows, true.tags] = False
        table *= is_predicted
        table -= ~is_predicted
        _note_wrong(table, rows, wrong, wrong_image)
        if progress is not None:
            progress("metrics of the images", rows.stop / num_images)
    missed_entries = ~decisions[-1].is_hit
    return TagCounts(
        num_known.astype(np.int32),
        np.diff(present_starts).astype(np.int32),
        num_images - np.bincount(entries.unknown.tags, minlength=num_tags),
        np.bincount(present.tags, minlength=num_tags),
        loss,
        LabelRanking(coverage, average_precision, ranking_loss, hits_at),
        decisions,
        present_probability,
        wrong,
        _lowest(present.rows, present.tags, present_probability, missed_entries, num_images),
        wrong_image,
        _lowest(present.tags, present.rows, present_probability, missed_entries, num_tags),
    )


def _empty_decisions(thresholds: np.ndarray, num_images: int, num_tags: int, num_present: int) -> Decisions:
    return Decisions(
        np.asarray(thresholds, np.float32),
        np.zeros(num_images, np.int32),
        np.zeros(num_images, np.int32),
        np.zeros(num_tags, np.int64),
        np.zeros(num_tags, np.int64),
        np.zeros(num_present, bool),
    )


def _cross_entropy(table: np.ndarray, labels: TagEntries) -> np.ndarray:
    """Returns float64 `(rows,)`, the sum of the binary cross-entropies of each row; unknown tags must have 0."""
    # First all tags as if they were absent; log(1 - p) in float32 is off by at most 6e-8, and needs no float64 table.
    log_absent = np.log(1.0 - np.minimum(table, np.float32(1.0 - _MIN_PROBABILITY)))
    known = labels.where(~np.isnan(labels.values))
    p = np.clip(table[known.rows, known.tags].astype(np.float64), _MIN_PROBABILITY, 1.0 - _MIN_PROBABILITY)
    correction = known.values * (np.log(p) - log_absent[known.rows, known.tags])
    return -(log_absent.sum(axis=1, dtype=np.float64) + np.bincount(known.rows, correction, len(table)))


def _note_wrong(table: np.ndarray, rows: slice, wrong: WorstTags, wrong_image: WorstTags) -> None:
    """Records the most probable wrong tag of each row, and for each tag its worst row so far.

    Args:
        table: float32 `(rows, num_tags)`, the probability of each wrongly predicted tag, -1 for all others.
        rows: the images of the table.
        wrong, wrong_image: changed in place; see `TagCounts`.
    """
    best = table.argmax(axis=1)
    probability = table[np.arange(len(table)), best]
    wrong.which[rows] = np.where(probability >= 0, best, -1)
    wrong.probability[rows] = np.where(probability >= 0, probability, np.nan)
    tag_maximum = table.max(axis=0)
    for tag in np.flatnonzero((tag_maximum >= 0) & ~(tag_maximum <= wrong_image.probability)):
        wrong_image.which[tag] = rows.start + int(table[:, tag].argmax())
        wrong_image.probability[tag] = tag_maximum[tag]


def _lowest(
    groups: np.ndarray, members: np.ndarray, probability: np.ndarray, wanted: np.ndarray, size: int
) -> WorstTags:
    """Returns for each of `size` groups the wanted member with the lowest probability."""
    lowest = WorstTags.none(size)
    entries = np.flatnonzero(wanted)
    entries = entries[np.argsort(-probability[entries], kind="stable")]  # assigned last: the lowest remains
    lowest.which[groups[entries]] = members[entries]
    lowest.probability[groups[entries]] = probability[entries]
    return lowest
