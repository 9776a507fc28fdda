"""Gathering labels row by row: what every kind has in common, and the one label for each image."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final

import numpy as np

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.values import is_missing
from model_trainer.sources.manifest.vocabulary import LabelsAs, Vocabulary, find_classes

__all__ = ["HOW_TO_SKIP", "Gathered", "Gatherer", "SingleLabels"]

HOW_TO_SKIP = (
    "To leave such rows out: Manifest(..., skip_unlabelled=True), or in a run --set train_data.skip_unlabelled=true."
)

Gathered = tuple[np.ndarray | LabelRows, tuple[str, ...]]  # labels and classes
Where = Callable[[int], str]


class Gatherer(Protocol):
    """Takes the label of one row after the other."""

    def add(self, row: Mapping[str, Any], columns: Columns, place: int) -> None:
        """Takes the label of the next row.

        Raises:
            DataError: it makes no sense; says so without the place.
        """

    def finish(self, where: Where, where_is_row: Where) -> Gathered:
        """The labels of all rows, and the classes.

        Args:
            where: what messages call the row at a place.
            where_is_row: what they call a row by its number from 0; slow.

        Raises:
            DataError: they do not fit each other, or the given classes; names the row.
        """


@final
class SingleLabels:
    """One class for each image: 4 bytes a row."""

    def __init__(
        self,
        column: str,
        labels_as: LabelsAs,
        classes: tuple[str, ...] | None,
        names: Mapping[int, str],
        origin: str,
    ) -> None:
        self.column, self.labels_as, self.classes, self.names, self.origin = column, labels_as, classes, names, origin
        self.vocabulary = Vocabulary()
        self.ids = array("i")

    def add(self, row: Mapping[str, Any], columns: Columns, place: int) -> None:
        label = row.get(self.column)
        if is_missing(label):
            raise DataError(f"{self.column!r} is empty; each row needs a label. {HOW_TO_SKIP}")
        if isinstance(label, (list, dict)):
            raise DataError(
                f"{self.column!r} should be one label as in the first row, got {str(label)[:60]}. "
                f"Say labels_column={self.column!r} if an image can have several."
            )
        self.ids.append(self.vocabulary.id_of(label, place))

    def finish(self, where: Where, where_is_row: Where) -> Gathered:
        classes, positions = find_classes(self.vocabulary, self.labels_as, self.classes, self.names, where, self.origin)
        return positions[np.frombuffer(self.ids, np.int32)], classes
