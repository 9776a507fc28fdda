"""Sparse labels: any number of tags per image, or a probability for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

__all__ = ["LabelRows"]


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Labels as sparse rows (CSR); a class without an entry in a row has the value 0.

    Attributes:
        starts: int64 `(num_examples + 1,)`, where each row starts in `classes` and `values`.
        classes: int32 `(k,)`, class indices.
        values: float32 `(k,)`: 1 if the image has the label, NaN if unknown (masked); or a probability.
        exclusive: True if a row holds the probabilities of mutually exclusive classes, which sum to 1.
    """

    starts: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    exclusive: bool = False

    @classmethod
    def of(
        cls,
        rows: Iterable[Sequence[int]],
        values: Iterable[Sequence[float]] | None = None,
        *,
        exclusive: bool = False,
    ) -> Self:
        """Makes rows from lists of class indices, and their values; without `values` each is 1."""
        rows = list(rows)
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        classes = np.fromiter((each for row in rows for each in row), np.int32, int(starts[-1]))
        if values is None:
            flat_values = np.ones(len(classes), np.float32)
        else:
            flat_values = np.fromiter((each for row in values for each in row), np.float32, int(starts[-1]))
        return cls(starts, classes, flat_values, exclusive)

    @classmethod
    def of_dense(cls, dense: np.ndarray, *, exclusive: bool = False) -> Self:
        """Makes rows from an array `(num_examples, num_classes)`; NaN means unknown."""
        rows, classes = np.nonzero(np.isnan(dense) | (dense != 0))
        starts = np.searchsorted(rows, np.arange(len(dense) + 1)).astype(np.int64)
        return cls(starts, classes.astype(np.int32), dense[rows, classes].astype(np.float32), exclusive)

    @classmethod
    def of_single(cls, labels: np.ndarray, *, exclusive: bool) -> Self:
        """Makes rows from one class index per image, int `(num_examples,)`."""
        starts = np.arange(len(labels) + 1, dtype=np.int64)
        return cls(starts, labels.astype(np.int32), np.ones(len(labels), np.float32), exclusive)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, indices: np.ndarray) -> LabelRows:
        """The rows at `indices`, in that order."""
        sizes = np.diff(self.starts)[indices]
        starts = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        # The position of each entry: the old start of its row, plus its offset within the row.
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        entries = np.repeat(self.starts[:-1][indices], sizes) + within
        return replace(self, starts=starts, classes=self.classes[entries], values=self.values[entries])

    def moved(self, position: np.ndarray) -> LabelRows:
        """The same labels in another class list; `position` maps each class to its new index, -1 drops it."""
        new = position[self.classes].astype(np.int32)
        is_cached = new >= 0
        starts = np.concatenate([[0], np.cumsum(is_cached)])[self.starts].astype(np.int64)
        return replace(self, starts=starts, classes=new[is_cached], values=self.values[is_cached])

    def dense(self, num_classes: int) -> np.ndarray:
        """float32 `(num_examples, num_classes)`; NaN means unknown."""
        table = np.zeros((len(self), num_classes), np.float32)
        table[self.row_of_entry(), self.classes] = self.values
        return table

    def row_of_entry(self) -> np.ndarray:
        """int64 `(k,)`: the row of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def most_likely(self) -> np.ndarray:
        """int32 `(num_examples,)`: the class with the largest value in each row, the lowest in a tie; -1 if empty."""
        best = np.full(len(self), -1, np.int32)
        # Assigned in ascending order of the values, so that the largest remains.
        order = np.lexsort((-self.classes, np.nan_to_num(self.values, nan=-1.0)))
        best[self.row_of_entry()[order]] = self.classes[order]
        return best

    def counts(self, num_classes: int) -> np.ndarray:
        """int64 `(num_classes,)`: images of each class; with probabilities the most likely class counts."""
        if self.exclusive:
            best = self.most_likely()
            return np.bincount(best[best >= 0], minlength=num_classes)
        return np.bincount(self.classes[self.values >= 0.5], minlength=num_classes)
