"""Rows of numbers that are not yet interpreted as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from model_trainer.sources.label_rows import LabelRows

__all__ = ["NumberRows"]


@dataclass(frozen=True, eq=False)
class NumberRows:
    """A row of numbers for each image, stored sparsely, so that wide rows with few labels take little memory.

    Attributes:
        widths: int32 `(num_rows,)`, numbers in each row, including zeros.
        entries: the nonzero numbers, with their column as the class.
    """

    widths: np.ndarray
    entries: LabelRows

    @classmethod
    def of_flat(cls, widths: np.ndarray, flat: np.ndarray) -> Self:
        """Makes rows from all numbers, row after row.

        Args:
            widths: int `(num_rows,)`.
            flat: float32 `(sum of widths,)`.
        """
        starts = np.zeros(len(widths) + 1, np.int64)
        np.cumsum(widths, out=starts[1:])
        nonzero = np.flatnonzero(flat)  # NaN counts as nonzero
        nonzero_starts = np.searchsorted(nonzero, starts)
        values = flat[nonzero]
        nonzero -= np.repeat(starts[:-1], np.diff(nonzero_starts))  # now the column of each
        entries = LabelRows(nonzero_starts, nonzero.astype(np.int32), values)
        return cls(np.asarray(widths, np.int32), entries)

    @classmethod
    def joined(cls, blocks: Sequence[NumberRows]) -> Self:
        """Concatenates `blocks`."""
        ends = np.cumsum([0, *(len(block.entries.classes) for block in blocks)])
        starts = [block.entries.starts[:-1] + end for block, end in zip(blocks, ends[:-1], strict=True)]
        entries = LabelRows(
            starts=np.concatenate([*starts, ends[-1:]]),
            classes=np.concatenate([block.entries.classes for block in blocks]),
            values=np.concatenate([block.entries.values for block in blocks]),
        )
        return cls(np.concatenate([block.widths for block in blocks]), entries)

    def __len__(self) -> int:
        return len(self.widths)

    def take(self, indices: np.ndarray) -> NumberRows:
        """The rows at `indices`, in that order."""
        return NumberRows(self.widths[indices], self.entries.take(indices))

    def row_of(self, entry: int) -> int:
        """The row to which an entry belongs."""
        return int(np.searchsorted(self.entries.starts, entry, side="right")) - 1
