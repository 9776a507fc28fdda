"""The true tags of images as sparse rows, as the metrics of tags read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["TagEntries", "TagLabels"]


class TagEntries(NamedTuple):
    """Labels that are not 0, one position of each array for one tag of one image.

    Attributes:
        rows: int64, index of the image.
        tags: int32, index of the tag.
        values: float32, 0.5 or more if the image has the tag, NaN if that is unknown.
    """

    rows: np.ndarray
    tags: np.ndarray
    values: np.ndarray

    def where(self, mask: np.ndarray) -> TagEntries:
        """Returns the entries for which `mask`, bool `(k,)`, is True."""
        return TagEntries(self.rows[mask], self.tags[mask], self.values[mask])

    @property
    def present(self) -> TagEntries:
        """The tags that the images have."""
        return self.where(self.values >= 0.5)

    @property
    def unknown(self) -> TagEntries:
        """The tags for which it is unknown whether the images have them."""
        return self.where(np.isnan(self.values))


@dataclass(frozen=True, eq=False)
class TagLabels:
    """Labels as sparse rows: any number of tags for each image; a tag without an entry is known to be absent.

    Attributes:
        starts: int64 `(num_images + 1,)`, where each image starts in `tags` and `values`.
        tags, values: as in `TagEntries`, `(k,)`; a tag occurs at most once in an image.
        num_tags: number of all tags.

    Example:
        >>> from model_trainer.metrics.tag_labels import TagLabels
        >>> labels = TagLabels.of_dense(np.float32([[1, 0, 1], [0, np.nan, 1]]))
        >>> labels.entries(slice(1, 2)).tags.tolist(), labels.entries().present.tags.tolist()
        ([1, 2], [0, 2, 2])
    """

    starts: np.ndarray
    tags: np.ndarray
    values: np.ndarray
    num_tags: int

    @classmethod
    def of_dense(cls, dense: np.ndarray) -> TagLabels:
        """Returns the labels of a dense table, float `(num_images, num_tags)`; NaN means unknown."""
        rows, tags = np.nonzero(np.isnan(dense) | (dense != 0))
        starts = np.searchsorted(rows, np.arange(len(dense) + 1)).astype(np.int64)
        return cls(starts, tags.astype(np.int32), dense[rows, tags].astype(np.float32), dense.shape[1])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def entries(self, rows: slice = slice(None)) -> TagEntries:
        """Returns the entries of a slice of images; their `rows` count from the start of the slice."""
        first, last, _ = rows.indices(len(self))
        span = slice(int(self.starts[first]), int(self.starts[last]))
        row_of_entry = np.repeat(np.arange(last - first), np.diff(self.starts[first : last + 1]))
        return TagEntries(row_of_entry, self.tags[span], self.values[span])

    def take(self, rows: np.ndarray) -> TagLabels:
        """Returns the labels of the images at `rows`, in that order."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        chosen = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], sizes)
        return TagLabels(starts, self.tags[chosen], self.values[chosen], self.num_tags)

    def rows_by_tag(self, entries: TagEntries) -> list[np.ndarray]:
        """Returns for each tag the rows of its entries, ascending."""
        order = np.argsort(entries.tags, kind="stable")
        bounds = np.searchsorted(entries.tags[order], np.arange(1, self.num_tags))
        return np.split(entries.rows[order], bounds)
