"""What the rows of a manifest hold, gathered before their labels are interpreted."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import numpy as np

from model_trainer.errors import DataError
from model_trainer.sources.labels.texts import TextsAs
from model_trainer.sources.manifest.columns import Columns, find_columns
from model_trainer.sources.manifest.labels import LabelReader, TagReader, make_label_reader
from model_trainer.sources.manifest.number_names import note_names
from model_trainer.sources.manifest.table import Table
from model_trainer.sources.manifest.values import is_missing

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["Gathered"]


@final
class Gathered:
    """Takes rows one at a time, or in batches of columns: the same rows make the same of it.

    Args:
        root: the folder below which the files are.
        asked: by what a column means, such as "file", the name that was given for it.
        labels_as: how labels are written.
        classes: the class list, if given.
        skip_unlabelled: leave out rows without a label.
        uniform: whether every row has every column.

    Attributes:
        columns, labels, table: None before the first row; what the rows hold.
        class_numbers: names of class numbers, from metadata.
        names: of all columns, in the order of appearance.
        skipped: numbers of the rows without a label, from 0.
    """

    def __init__(
        self,
        root: str,
        asked: Mapping[str, str | None],
        labels_as: TextsAs,
        classes: tuple[str, ...] | None,
        *,
        skip_unlabelled: bool,
        uniform: bool,
    ) -> None:
        self.asked, self.labels_as, self.classes = asked, labels_as, classes
        self.skip_unlabelled, self.uniform = skip_unlabelled, uniform
        self.columns: Columns | None = None
        self.labels: LabelReader | None = None
        self.table = Table(root)
        self.class_numbers: dict[int, str] = {}
        self.names: dict[str, None] = {}
        self.skipped = array("q")

    @property
    def num_rows(self) -> int:
        """How many rows came, skipped ones too."""
        return self.table.num_rows + len(self.skipped)

    def note_columns(self, names: Iterable[str]) -> Columns:
        """Chooses among the columns so far and those of the next row.

        Raises:
            DataError: there are none with files or labels, or others than in the rows before.
        """
        self.names.update(dict.fromkeys(names))
        columns = find_columns(self.names, self.asked, all_known=self.uniform)
        before = self.columns
        if before is not None and (before.label, before.kind) != (columns.label, columns.kind):
            raise DataError(
                f"labels stand in {columns.label!r}, but in {before.label!r} in the rows before. Give all rows the "
                f"same columns, or name the one to read, such as label_column={before.label!r}."
            )
        if before is not None and before.file != columns.file:
            raise DataError(
                f"the file stands in {columns.file!r}, but in {before.file!r} in the rows before. Give all rows the "
                f"same columns, or name the one to read: file_column={before.file!r}."
            )
        self.columns = columns
        return columns

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Takes the next row.

        Raises:
            DataError: it makes no sense; says so without the row.
        """
        if self.columns is None or not row.keys() <= self.names.keys():
            is_first = self.columns is None and self.skip_unlabelled and not self.uniform
            # Of JSON Lines the first rows may not even have the key; if none has, that is said at the end.
            with contextlib.suppress(DataError) if is_first else contextlib.nullcontext():
                self.note_columns(row)
        if self.columns is None or (self.skip_unlabelled and self._is_unlabelled(row, self.columns)):
            self.skipped.append(self.num_rows)
            return
        if self.labels is None:
            self.labels = make_label_reader(self.columns, row, self.labels_as, self.classes)
        self.table.add(row, self.columns)
        self.labels.add(row, self.columns)
        if self.columns.metadata is not None:
            note_names(row.get(self.columns.metadata), row.get(self.columns.label), self.class_numbers)

    def add_batch(self, batch: RecordBatch) -> None:
        """Takes the next rows, with a column of Arrow for each of `columns`, which are noted before.

        Raises:
            Declined: they are to be added one by one, to a new `Gathered`.
            DataError: one of them makes no sense.
        """
        from model_trainer.sources.manifest.arrow_values import Declined

        columns = self.columns
        if columns is None or columns.metadata is not None:
            raise Declined("metadata are read row by row")
        if self.skip_unlabelled:
            lacks = self._lack_labels(batch, columns)
            self.skipped.frombytes((np.flatnonzero(lacks) + self.num_rows).tobytes())
            batch = batch.filter(~lacks)
        if not len(batch):
            return
        if self.labels is None:
            self.labels = make_label_reader(columns, batch.slice(0, 1).to_pylist()[0], self.labels_as, self.classes)
        self.table.add_batch(batch, columns)
        self.labels.add_batch(batch, columns)

    def _is_unlabelled(self, row: Mapping[str, Any], columns: Columns) -> bool:
        value = row.get(columns.label)
        return value is None or value != value if self._are_tags(columns) else is_missing(value)

    def _lack_labels(self, batch: RecordBatch, columns: Columns) -> np.ndarray:
        from model_trainer.sources.manifest.arrow_values import is_empty

        column = batch.column(columns.label)
        lacks = is_empty(column, text_too=not self._are_tags(columns))
        first = int(np.argmin(lacks))
        if self.labels is None and not lacks[first]:
            # From the first label on it is known whether they are tags.
            self.labels = make_label_reader(columns, batch.slice(first, 1).to_pylist()[0], self.labels_as, self.classes)
            lacks[first:] = is_empty(column.slice(first), text_too=not self._are_tags(columns))
        return lacks

    def _are_tags(self, columns: Columns) -> bool:
        """Whether empty text says that an image has no label, and not that nobody labelled it."""
        return columns.kind == "labels" or isinstance(self.labels, TagReader)
