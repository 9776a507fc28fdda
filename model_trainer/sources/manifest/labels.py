"""The labels of a manifest, a row or a batch of rows at a time; `sources/labels/` interprets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, final

from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.kinds import Interpreted
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.probabilities import ProbabilityRows
from model_trainer.sources.labels.tags import ManyLabels, TagTexts
from model_trainer.sources.labels.texts import SingleTexts, TextsAs
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.values import is_missing, items_of, looks_like_list, numbers_of

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["LabelReader", "TagReader", "make_label_reader"]

HOW_TO_SKIP = (
    "To leave such rows out: Manifest(..., skip_unlabelled=True), or in a run --set train_data.skip_unlabelled=true."
)


class LabelReader(Protocol):
    """Takes the label of one row after the other."""

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        """Takes the label of the next row.

        Raises:
            DataError: it makes no sense; says so without the row.
        """

    def add_batch(self, batch: RecordBatch, columns: Columns) -> None:
        """Takes the labels of the next rows, a column of Arrow for each one that is read.

        Raises:
            Declined: they are to be added one by one; some may have been taken.
            DataError: one makes no sense.
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
    """What fits the kind of labels, inferred from the column and the value in the first row.

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
        self.texts.add(self._checked(row.get(self.column)))

    def add_batch(self, batch: RecordBatch, columns: Columns) -> None:
        from model_trainer.sources.manifest import arrow_values

        labels, codes = arrow_values.distinct(batch.column(self.column), zeros_alike=True)
        self.texts.extend([self._checked(label) for label in labels], codes)

    def _checked(self, label: Any) -> Any:
        if is_missing(label):
            raise DataError(f"{self.column!r} is empty; each row needs a label. {HOW_TO_SKIP}")
        if isinstance(label, (list, dict)):
            raise DataError(
                f"{self.column!r} should be one label as in the first row, got {str(label)[:60]}. "
                f"Say labels_column={self.column!r} if an image can have several."
            )
        return label

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

    def add_batch(self, batch: RecordBatch, columns: Columns) -> None:
        from model_trainer.sources.manifest.arrow_values import lists_of

        present = lists_of(batch.column(self.column), self.column, missing_is_empty=False)
        unknown: ManyLabels | None = None
        if columns.unknown is not None:
            unknown = lists_of(batch.column(columns.unknown), columns.unknown, missing_is_empty=True)
        self.texts.extend(present, unknown)

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
        self._add(row.get(self.column), None if columns.class_name is None else row.get(columns.class_name))

    def add_batch(self, batch: RecordBatch, columns: Columns) -> None:
        names = [None] * len(batch)
        if columns.class_name is not None:
            names = batch.column(columns.class_name).to_pylist()
        for value, name in zip(batch.column(self.column).to_pylist(), names, strict=True):
            self._add(value, name)

    def _add(self, value: Any, name: Any) -> None:
        if is_missing(value):
            raise DataError(f"{self.column!r} is empty; each row needs a probability for each class. {HOW_TO_SKIP}")
        self.rows.add(numbers_of(value, self.column), None if is_missing(name) else name, value)

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> Interpreted:
        return self.rows.interpret(where)
