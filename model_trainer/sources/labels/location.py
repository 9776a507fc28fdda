"""The location of labels in messages: the row of an invalid one, and the cure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

__all__ = ["LabelLocation"]


@dataclass(frozen=True)
class LabelLocation:
    """How messages name the labels of a source.

    Attributes:
        origin: the source of all labels: "train.csv", "train.rec".
        row: from a 0-based row number to its name: "train.csv line 17", "train.rec#5". It is called for messages only,
            and may be slow.
        column: the column of the labels; empty if rows have no columns.
        cure: a sentence to append for a number that is not a valid class index.
        range_cure: a sentence to append for a number beyond the declared classes.
    """

    origin: str
    row: Callable[[int], str]
    column: str = ""
    cure: str = ""
    range_cure: str = ""

    def at(self, rows: Sequence[int] | np.ndarray) -> Self:
        """The same location, but `row` takes a position in `rows` instead of a row."""
        return replace(self, row=lambda position: self.row(int(rows[position])))

    def labels_of(self, row: int) -> str:
        """Subject of a sentence about the labels of a row: "train.rec#5", "train.csv line 17: 'tags'"."""
        return self._with_column(self.row(row))

    @property
    def all_labels(self) -> str:
        """Subject of a sentence about all labels: "train.rec", "train.csv: 'tags'"."""
        return self._with_column(self.origin)

    def _with_column(self, location: str) -> str:
        return f"{location}: {self.column!r}" if self.column else location
