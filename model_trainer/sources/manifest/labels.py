"""The labels of a manifest, read row by row; what they mean is told by `sources/labels/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, final

from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.kinds import Interpreted
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.probabilities import ProbabilityRows
from model_trainer.sources.labels.tags import TagTexts
from model_trainer.sources.labels.texts import SingleTexts, TextsAs
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.values import is_missing, items_of, looks_like_list, numbers_of

__all__ = ["LabelReader", "TagReader", "make_label_reader"]

HOW_TO_SKIP = (
    "To leave such rows out: Manifest(..., skip_unlabelled=True), or in a run --set train_data.skip_unlabelled=true."
)


class LabelReader(Protocol):
    """Takes the label of one row after the other."""

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        """Takes the label of the next row.

        Raises:
            DataError: it makes no sense; says so without the place.
        """

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> Interpreted:
        """The labels of all rows, and the class list.

        Args:
            names: of class numbers, from metadata.

        Raises:
            DataError: they do not fit each other, or the given classes; names the row.
        """


def make_label_reader(
    columns: Columns, first: Mapping[str, Any], labels_as: TextsAs, given: tuple[str, ...] | None
) -> LabelReader:
    """What fits the kind of labels, told from the column and the value in the first row.

    Args:
        given: the class list, if given.
    """
    column = columns.label
    if columns.kind == "probabilities":
        return ProbabilityReader(column, given)
    if columns.kind == "ids" and labels_as == "auto":
        labels_as = "indices"
    if columns.kind == "labels" or labels_as == "multi_hot" or looks_like_list(first.get(column)):
        return TagReader(column, labels_as, given)
    return SingleReader(column, labels_as, given)


@final
class SingleReader:
    """One label for each image."""

    def __init__(self, column: str, labels_as: TextsAs, given: tuple[str, ...] | None) -> None:
        self.column, self.labels_as, self.given = column, labels_as, given
        self.texts = SingleTexts()

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        label = row.get(self.column)
        if is_missing(label):
            raise DataError(f"{self.column!r} is empty; each row needs a label. {HOW_TO_SKIP}")
        if isinstance(label, (list, dict)):
            raise DataError(
                f"{self.column!r} should be one label as in the first row, got {str(label)[:60]}. "
                f"Say labels_column={self.column!r} if an image can have several."
            )
        self.texts.add(label)

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> Interpreted:
        return self.texts.interpret(self.labels_as, self.given, names, where)


@final
class TagReader:
    """Any number of labels for each image, and in another column those that are unknown."""

    def __init__(self, column: str, labels_as: TextsAs, given: tuple[str, ...] | None) -> None:
        self.column, self.labels_as, self.given = column, labels_as, given
        self.texts = TagTexts()

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        unknown = None if columns.unknown is None else row.get(columns.unknown)
        self.texts.add(
            items_of(row.get(self.column), self.column),
            [] if is_missing(unknown) else items_of(unknown, str(columns.unknown)),
        )

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> Interpreted:
        interpreted = self.texts.interpret(self.labels_as, self.given, names, where)
        if self.labels_as != "multi_hot" and self.texts.one_each():
            logging.info(
                "%s: %r holds one label in every row, read as tags. Say label_column=%r if each image has exactly one.",
                *(where.origin, self.column, self.column),
            )
        return interpreted


@final
class ProbabilityReader:
    """A probability for each class, and in another column each image's class."""

    def __init__(self, column: str, given: tuple[str, ...] | None) -> None:
        self.column = column
        self.rows = ProbabilityRows(given, column)

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        value = row.get(self.column)
        if is_missing(value):
            raise DataError(f"{self.column!r} is empty; each row needs a probability for each class. {HOW_TO_SKIP}")
        name = None if columns.class_name is None else row.get(columns.class_name)
        self.rows.add(numbers_of(value, self.column), None if is_missing(name) else name, value)

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> Interpreted:
        return self.rows.interpret(where)
