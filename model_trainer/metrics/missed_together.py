"""Finds the pairs of tags that a model misses in the same images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from model_trainer.metrics.tag_labels import TagEntries

__all__ = ["MissedPair", "missed_together"]

_MAX_TAGS = 1000  # so that the table of pairs stays small


class MissedPair(NamedTuple):
    """Two tags that are missed together.

    Attributes:
        tags: their indices, ascending.
        num_images: number of images that have both, and in which neither is predicted.
        expected: how many such images there would be if misses were independent: the number of images that have both
            tags, times the miss rate of each tag.
    """

    tags: tuple[int, int]
    num_images: int
    expected: float


def missed_together(
    present: TagEntries, is_hit: np.ndarray, num_images: int, num_tags: int, max_pairs: int = 50
) -> list[MissedPair]:
    """Returns the pairs of tags that are missed together more often than expected, the largest surplus first.

    A pair that is missed together only once is left out, and so are all but the 1,000 tags that are missed most often.

    Args:
        present: the tags that the images have, without unknown ones.
        is_hit: bool, for each entry of `present`, whether it is predicted.
        num_images, num_tags: numbers of images and of tags.
        max_pairs: maximum number of pairs.

    Example:
        >>> from model_trainer.metrics.missed_together import missed_together
        >>> from model_trainer.metrics.tag_labels import TagLabels
        >>> present = TagLabels.of_dense(np.ones((6, 2), np.float32)).entries().present
        >>> is_hit = np.repeat([True, True, True, True, False, False], 2)
        >>> [(pair.tags, pair.num_images, round(pair.expected, 2)) for pair in missed_together(present, is_hit, 6, 2)]
        [((0, 1), 2, 0.67)]
    """
    missed_images = np.bincount(present.tags[~is_hit], minlength=num_tags)
    tag_images = np.bincount(present.tags, minlength=num_tags)
    compared_tags = np.sort(np.argsort(-missed_images, kind="stable")[:_MAX_TAGS])
    compared_tags = compared_tags[missed_images[compared_tags] > 0]
    position = np.full(num_tags, -1)
    position[compared_tags] = np.arange(len(compared_tags))
    column = position[present.tags]
    both_present = _pairs(present.rows[column >= 0], column[column >= 0], num_images, len(compared_tags))
    is_compared_miss = (column >= 0) & ~is_hit
    both_missed = _pairs(present.rows[is_compared_miss], column[is_compared_miss], num_images, len(compared_tags))
    miss_rate = missed_images[compared_tags] / np.maximum(tag_images[compared_tags], 1)
    expected = both_present * miss_rate[:, None] * miss_rate
    first, second = np.nonzero(np.triu((both_missed >= 2) & (both_missed > expected), k=1))
    surplus = both_missed[first, second] - expected[first, second]
    largest = np.argsort(-surplus, kind="stable")[:max_pairs]
    return [
        MissedPair((int(compared_tags[a]), int(compared_tags[b])), int(both_missed[a, b]), float(expected[a, b]))
        for a, b in zip(first[largest], second[largest], strict=True)
    ]


def _pairs(rows: np.ndarray, columns: np.ndarray, num_images: int, num_columns: int) -> np.ndarray:
    """Returns int64 `(num_columns, num_columns)`: number of images that have an entry in both columns."""
    table = sparse.csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(num_images, num_columns))
    return (table.T @ table).toarray()
