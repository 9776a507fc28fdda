"""Rows of numbers, before it is known what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from model_trainer.sources.label_rows import LabelRows

__all__ = ["NumberRows"]


@dataclass(frozen=True, eq=False)
class NumberRows:
    """A row of numbers for each image; zeros are not kept, so wide rows of few labels stay small.

    Attributes:
        widths: int32 `(num_rows,)`, how many numbers each row has, zeros too.
        entries: those that are not 0, with the column in which each stands as its class.
    """

    widths: np.ndarray
    entries: LabelRows

    @classmethod
    def of_flat(cls, widths: np.ndarray, flat: np.ndarray) -> Self:
        """From all numbers, one row after the other.

        Args:
            widths: int `(num_rows,)`.
            flat: float32 `(sum of widths,)`.
        """
        starts = np.zeros(len(widths) + 1, np.int64)
        np.cumsum(widths, out=starts[1:])
        kept = np.flatnonzero(flat)  # NaN counts as not 0
        kept_starts = np.searchsorted(kept, starts)
        values = flat[kept]
        kept -= np.repeat(starts[:-1], np.diff(kept_starts))  # now the column of each
        entries = LabelRows(kept_starts, kept.astype(np.int32), values)
        return cls(np.asarray(widths, np.int32), entries)

    @classmethod
    def joined(cls, parts: Sequence[NumberRows]) -> Self:
        """One after the other."""
        ends = np.cumsum([0, *(len(part.entries.classes) for part in parts)])
        starts = [part.entries.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        entries = LabelRows(
            starts=np.concatenate([*starts, ends[-1:]]),
            classes=np.concatenate([part.entries.classes for part in parts]),
            values=np.concatenate([part.entries.values for part in parts]),
        )
        return cls(np.concatenate([part.widths for part in parts]), entries)

    def __len__(self) -> int:
        return len(self.widths)

    def take(self, indices: np.ndarray) -> NumberRows:
        """The rows at `indices`, in that order."""
        return NumberRows(self.widths[indices], self.entries.take(indices))

    def row_of(self, entry: int) -> int:
        """The row to which an entry belongs."""
        return int(np.searchsorted(self.entries.starts, entry, side="right")) - 1
