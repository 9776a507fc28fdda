"""Collects the rows of a manifest before their labels are interpreted."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import numpy as np

from model_trainer.errors import DataError
from model_trainer.sources.labels.text_labels import LabelFormat
from model_trainer.sources.manifest.class_map import add_class_names
from model_trainer.sources.manifest.columns import Columns, find_columns
from model_trainer.sources.manifest.labels import LabelReader, TagReader, make_label_reader
from model_trainer.sources.manifest.table import Table
from model_trainer.sources.manifest.values import is_missing

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["RowCollector"]


@final
class RowCollector:
    """Collects rows, one at a time or in Arrow batches; both give the same result.

    Args:
        root: the folder to which paths are relative.
        requested: column names from the user, by role such as "file"; None searches for the usual names.
        labels_as: how labels are written.
        classes: the class list, or None.
        skip_unlabeled: leave out rows without a label.
        uniform: whether every row has every column.

    Attributes:
        columns, labels: the columns that are read, and the labels; None before the first row.
        table: the columns other than the labels.
        class_numbers: class names by class index, from metadata.
        names: the names of all columns, in the order of appearance.
        skipped: indices of the rows without a label, from 0.
    """

    def __init__(
        self,
        root: str,
        requested: Mapping[str, str | None],
        labels_as: LabelFormat,
        classes: tuple[str, ...] | None,
        *,
        skip_unlabeled: bool,
        uniform: bool,
    ) -> None:
        self.requested, self.labels_as, self.classes = requested, labels_as, classes
        self.skip_unlabeled, self.uniform = skip_unlabeled, uniform
        self.columns: Columns | None = None
        self.labels: LabelReader | None = None
        self.table = Table(root)
        self.class_numbers: dict[int, str] = {}
        self.names: dict[str, None] = {}
        self.skipped = array("q")

    @property
    def num_rows(self) -> int:
        """The number of rows so far, including skipped ones."""
        return self.table.num_rows + len(self.skipped)

    def update_columns(self, names: Iterable[str]) -> Columns:
        """Chooses the columns to read among those of earlier rows and those of the next row.

        Raises:
            DataError: no column has files or labels, or they are in other columns than in earlier rows.
        """
        self.names.update(dict.fromkeys(names))
        columns = find_columns(self.names, self.requested, all_known=self.uniform)
        before = self.columns
        if before is not None and (before.label, before.kind) != (columns.label, columns.kind):
            raise DataError(
                f"labels are in {columns.label!r}, but in {before.label!r} in the rows before. Give all rows the "
                f"same columns, or name the one to read, such as label_column={before.label!r}."
            )
        if before is not None and before.file != columns.file:
            raise DataError(
                f"the file is in {columns.file!r}, but in {before.file!r} in the rows before. Give all rows the "
                f"same columns, or name the one to read: file_column={before.file!r}."
            )
        self.columns = columns
        return columns

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Adds the next row.

        Raises:
            DataError: a value is invalid; the message does not name the row.
        """
        if self.columns is None or not row.keys() <= self.names.keys():
            is_first = self.columns is None and self.skip_unlabeled and not self.uniform
            # In JSON Lines the first rows may lack the key; if all do, `Manifest` reports it at the end.
            with contextlib.suppress(DataError) if is_first else contextlib.nullcontext():
                self.update_columns(row)
        if self.columns is None or (self.skip_unlabeled and self._is_unlabeled(row, self.columns)):
            self.skipped.append(self.num_rows)
            return
        if self.labels is None:
            self.labels = make_label_reader(self.columns, row, self.labels_as, self.classes)
        self.table.add(row, self.columns)
        self.labels.add(row, self.columns)
        if self.columns.metadata is not None:
            add_class_names(row.get(self.columns.metadata), row.get(self.columns.label), self.class_numbers)

    def add_batch(self, batch: RecordBatch) -> None:
        """Adds the next rows, an Arrow column for each of `columns`; call `update_columns` first.

        Raises:
            NeedsRowReader: the file must be added row by row, to a new `RowCollector`.
            DataError: a value is invalid.
        """
        from model_trainer.sources.manifest.arrow_values import NeedsRowReader

        columns = self.columns
        if columns is None or columns.metadata is not None:
            raise NeedsRowReader("metadata is read row by row")
        if self.skip_unlabeled:
            unlabeled = self._unlabeled_rows(batch, columns)
            self.skipped.frombytes((np.flatnonzero(unlabeled) + self.num_rows).tobytes())
            batch = batch.filter(~unlabeled)
        if not len(batch):
            return
        if self.labels is None:
            self.labels = make_label_reader(columns, batch.slice(0, 1).to_pylist()[0], self.labels_as, self.classes)
        self.table.add_batch(batch, columns)
        self.labels.add_batch(batch, columns)

    def _is_unlabeled(self, row: Mapping[str, Any], columns: Columns) -> bool:
        value = row.get(columns.label)
        return value is None or value != value if self._are_tags(columns) else is_missing(value)

    def _unlabeled_rows(self, batch: RecordBatch, columns: Columns) -> np.ndarray:
        from model_trainer.sources.manifest.arrow_values import is_empty

        column = batch.column(columns.label)
        unlabeled = is_empty(column, text_too=not self._are_tags(columns))
        first = int(np.argmin(unlabeled))
        if self.labels is None and not unlabeled[first]:
            # The first label decides whether labels are tags, for which empty text means an image without tags.
            self.labels = make_label_reader(columns, batch.slice(first, 1).to_pylist()[0], self.labels_as, self.classes)
            unlabeled[first:] = is_empty(column.slice(first), text_too=not self._are_tags(columns))
        return unlabeled

    def _are_tags(self, columns: Columns) -> bool:
        """Whether an empty string is a label: that of an image without tags, not of an unlabeled one."""
        return columns.kind == "labels" or isinstance(self.labels, TagReader)
