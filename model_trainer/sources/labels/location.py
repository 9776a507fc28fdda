"""What messages call labels: where a bad one stands, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

__all__ = ["LabelLocation"]


@dataclass(frozen=True)
class LabelLocation:
    """What messages need from a source.

    Attributes:
        origin: what holds all labels: "train.csv", "train.rec".
        row: from the number of a row, from 0, to what it is called: "train.csv line 17", "train.rec#5". It is called
            for messages only, and may be slow.
        column: the column in which the labels stand; empty where a row is nothing but its labels.
        cure: sentence about a number that no class can have.
        range_cure: sentence about a number that none of the given classes has.
    """

    origin: str
    row: Callable[[int], str]
    column: str = ""
    cure: str = ""
    range_cure: str = ""

    def at(self, rows: Sequence[int] | np.ndarray) -> Self:
        """The same where what is counted stands in `rows`."""
        return replace(self, row=lambda position: self.row(int(rows[position])))

    def labels_of(self, row: int) -> str:
        """Subject of a sentence about the labels of a row: "train.rec#5", "train.csv line 17: 'tags'"."""
        return self._with_column(self.row(row))

    @property
    def all_labels(self) -> str:
        """Subject of a sentence about all labels: "train.rec", "train.csv: 'tags'"."""
        return self._with_column(self.origin)

    def _with_column(self, place: str) -> str:
        return f"{place}: {self.column!r}" if self.column else place
