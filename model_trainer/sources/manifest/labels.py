"""Reads the label columns of a manifest, row by row or in batches; `sources/labels/` interprets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, final

from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.probabilities import ProbabilityRows
from model_trainer.sources.labels.tags import ManyLabels, TagCollector
from model_trainer.sources.labels.text_labels import LabelFormat, SingleLabelCollector
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.values import is_missing, items_of, looks_like_list, numbers_of

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["LabelReader", "TagReader", "make_label_reader"]

HOW_TO_SKIP = (
    "To leave such rows out: Manifest(..., skip_unlabeled=True), or in a run --set train_data.skip_unlabeled=true."
)


class LabelReader(Protocol):
    """Collects the labels of the rows, then interprets them all."""

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        """Adds the labels of the next row.

        Raises:
            DataError: a value is invalid; the message does not name the row.
        """

    def add_batch(self, batch: RecordBatch, columns: Columns) -> None:
        """Adds the labels of the next rows, an Arrow column for each column that is read.

        Raises:
            NeedsRowReader: the rows must be added one by one; some may have been added already.
            DataError: a value is invalid.
        """

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> LabelsAndClasses:
        """The labels of all rows, and the class list.

        Args:
            names: class names by class index, from metadata.

        Raises:
            DataError: a label is inconsistent with the others or is not in the class list; the message names the row.
        """


def make_label_reader(
    columns: Columns, first: Mapping[str, Any], labels_as: LabelFormat, classes: tuple[str, ...] | None
) -> LabelReader:
    """The reader for the kind of labels, which is inferred from the column and its value in the first row.

    Args:
        classes: the class list, or None.
    """
    column = columns.label
    if columns.kind == "probabilities":
        return ProbabilityReader(column, classes)
    if columns.kind == "ids" and labels_as == "auto":
        labels_as = "indices"
    if columns.kind == "labels" or labels_as == "multi_hot" or looks_like_list(first.get(column)):
        return TagReader(column, labels_as, classes)
    return SingleReader(column, labels_as, classes)


@final
class SingleReader:
    """Reads one label per image."""

    def __init__(self, column: str, labels_as: LabelFormat, classes: tuple[str, ...] | None) -> None:
        self.column, self.labels_as, self.classes = column, labels_as, classes
        self.texts = SingleLabelCollector()

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
                f"Set labels_column={self.column!r} if an image can have several."
            )
        return label

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> LabelsAndClasses:
        return self.texts.interpret(self.labels_as, self.classes, names, where)


@final
class TagReader:
    """Reads any number of tags per image, and the unknown (masked) ones from another column."""

    def __init__(self, column: str, labels_as: LabelFormat, classes: tuple[str, ...] | None) -> None:
        self.column, self.labels_as, self.classes = column, labels_as, classes
        self.texts = TagCollector()

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

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> LabelsAndClasses:
        interpreted = self.texts.interpret(self.labels_as, self.classes, names, where)
        if self.labels_as != "multi_hot" and self.texts.one_each():
            logging.info(
                "%s: %r holds one label in every row, read as tags. Set label_column=%r if each image has exactly one.",
                *(where.origin, self.column, self.column),
            )
        return interpreted


@final
class ProbabilityReader:
    """Reads a probability for each class, and each image's class from another column."""

    def __init__(self, column: str, classes: tuple[str, ...] | None) -> None:
        self.column = column
        self.rows = ProbabilityRows(classes, column)

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

    def interpret(self, names: Mapping[int, str], where: LabelLocation) -> LabelsAndClasses:
        return self.rows.interpret(where)
