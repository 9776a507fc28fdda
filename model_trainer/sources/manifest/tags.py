"""Any number of labels for each image: as names, class numbers or multi-hot rows."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.labels import Gathered, Where
from model_trainer.sources.manifest.values import is_missing, items_of
from model_trainer.sources.manifest.vocabulary import LabelsAs, Vocabulary, find_classes

__all__ = ["TagRows"]


class _Ids:
    """Labels of all rows by their number in a vocabulary."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self.flat = array("i")
        self.starts = array("q", [0])
        self.first_repeat: int | None = None  # place of the first row that has a label twice

    def add(self, labels: list[Any], place: int) -> None:
        ids = [self.vocabulary.id_of(label, place) for label in labels]
        self.flat.extend(ids)
        self.starts.append(len(self.flat))
        if self.first_repeat is None and len(set(ids)) < len(ids):
            self.first_repeat = place

    def widths(self) -> np.ndarray:
        return np.diff(np.frombuffer(self.starts, np.int64))

    def entries(self, positions: np.ndarray, num_classes: int) -> np.ndarray:
        """int64: row * num_classes + class of each label."""
        rows = np.repeat(np.arange(len(self.starts) - 1), self.widths())
        return rows * num_classes + positions[np.frombuffer(self.flat, np.int32)]


@final
class TagRows:
    """Labels as sparse rows: 8 bytes a row and 8 a label.

    While they are gathered each number of a multi-hot row takes 4 bytes, and for a moment 13.

    Args:
        column: holds the labels.
        labels_as: how labels are written; "auto" takes lists of one length with numbers from 0 to 1, or -1 or null
            for unknown, as multi-hot rows, other whole numbers as class numbers, and anything else as names.
        classes: the class list, if given.
        names: names of class numbers, filled while rows are added; they make every number a class number.
        origin: the manifest, for messages.
    """

    def __init__(
        self,
        column: str,
        labels_as: LabelsAs,
        classes: tuple[str, ...] | None,
        names: Mapping[int, str],
        origin: str,
    ) -> None:
        self.column, self.labels_as, self.classes, self.names, self.origin = column, labels_as, classes, names, origin
        self.present, self.unknown = _Ids(), _Ids()

    def add(self, row: Mapping[str, Any], columns: Columns, place: int) -> None:
        self.present.add(items_of(row.get(self.column), self.column), place)
        unknown = None if columns.unknown is None else row.get(columns.unknown)
        # Added even when empty: a later row may be the first to have the column.
        self.unknown.add([] if is_missing(unknown) else items_of(unknown, str(columns.unknown)), place)

    def finish(self, where: Where, where_is_row: Where) -> Gathered:
        if self._is_multi_hot():
            return self._multi_hot(where, where_is_row)
        labels_as: LabelsAs = "indices" if self.names and self.labels_as == "auto" else self.labels_as
        vocabulary = self.present.vocabulary
        unknown = self.unknown.vocabulary
        # In the class list labels that are only ever unknown have their place too.
        ids = [vocabulary.id_of(label, place) for label, place in zip(unknown.ids, unknown.places, strict=True)]
        classes, positions = find_classes(vocabulary, labels_as, self.classes, self.names, where, self.origin)
        self._say_how_read(vocabulary)
        if self.present.first_repeat is not None and all(map(_is_digit, vocabulary.ids)):
            raise DataError(
                f"{where(self.present.first_repeat)}: {self.column!r} has a class number twice. If these are multi-hot "
                "rows, all of them need the same length."
            )
        keys = np.unique(self.present.entries(positions, len(classes)))
        rows = _rows_of(keys, np.ones(len(keys), np.float32), len(self.present.widths()), len(classes))
        return self._with_unknown(rows, positions[ids], len(classes), where_is_row), classes

    def _is_multi_hot(self) -> bool:
        if self.labels_as != "auto" or self.names:
            return self.labels_as == "multi_hot"
        widths = self.present.widths()
        width = int(widths.max(initial=0))
        return (
            width > 1
            and bool(np.all(widths == width))
            and (self.classes is None or len(self.classes) == width)
            and all(_hot_value(label) is not None for label in self.present.vocabulary.ids)
        )

    def _multi_hot(self, where: Where, where_is_row: Where) -> Gathered:
        vocabulary, widths = self.present.vocabulary, self.present.widths()
        width = int(widths[0]) if self.classes is None else len(self.classes)
        others = np.flatnonzero(widths != width)
        if len(others):
            which = "the first row has" if self.classes is None else "the given classes are"
            raise DataError(
                f"{where_is_row(int(others[0]))}: {self.column!r} has {widths[others[0]]} numbers, {which} {width}; "
                "in a multi-hot row each class has its place. Say labels='indices' if they are class numbers."
            )
        values = [_hot_value(label) for label in vocabulary.ids]
        for label, place, value in zip(vocabulary.ids, vocabulary.places, values, strict=True):
            if value is None:
                raise DataError(
                    f"{where(place)}: {self.column!r} has {label!r}; a multi-hot row holds 0 and 1, -1 or null for "
                    "unknown, or something between 0 and 1."
                )
        dense = np.array(values, np.float32)[np.frombuffer(self.present.flat, np.int32)]
        rows = LabelRows.of_dense(dense.reshape(-1, width))
        classes = self.classes or tuple(map(str, range(width)))
        if self.labels_as == "auto":
            logging.log(
                logging.WARNING if width == 2 else logging.INFO,
                "%s: %r holds %d numbers in each row; read as multi-hot rows, labels='multi_hot'. "
                "Say labels='indices' if they are class numbers.",
                *(self.origin, self.column, width),
            )
        _, unknown = find_classes(self.unknown.vocabulary, "auto", classes, {}, where, self.origin)
        return self._with_unknown(rows, unknown, width, where_is_row), classes

    def _with_unknown(self, rows: LabelRows, positions: np.ndarray, num_classes: int, where_is_row: Where) -> LabelRows:
        if not len(self.unknown.flat):
            return rows
        known = rows.row_of_entry() * num_classes + rows.classes
        unknown = np.unique(self.unknown.entries(positions, num_classes))
        both = np.intersect1d(known[~np.isnan(rows.values)], unknown)
        if len(both):
            raise DataError(
                f"{where_is_row(int(both[0]) // num_classes)}: a label of {self.column!r} is unknown as well; "
                "it cannot be both."
            )
        new = np.setdiff1d(unknown, known)
        keys = np.concatenate([known, new])
        values = np.concatenate([rows.values, np.full(len(new), np.nan, np.float32)])
        order = np.argsort(keys, kind="stable")
        return _rows_of(keys[order], values[order], len(rows), num_classes)

    def _say_how_read(self, vocabulary: Vocabulary) -> None:
        if self.labels_as == "auto" and vocabulary.ids and all(map(_is_digit, vocabulary.ids)):
            logging.info("%s: %r holds class numbers, labels='indices'.", self.origin, self.column)
        if np.all(self.present.widths() == 1):
            logging.info(
                "%s: %r holds one label in every row, read as tags. Say label_column=%r if each image has exactly one.",
                *(self.origin, self.column, self.column),
            )


def _rows_of(keys: np.ndarray, values: np.ndarray, num_rows: int, num_classes: int) -> LabelRows:
    """Rows from sorted `row * num_classes + class`."""
    starts = np.searchsorted(keys, np.arange(num_rows + 1, dtype=np.int64) * num_classes)
    return LabelRows(starts.astype(np.int64), (keys % num_classes).astype(np.int32), values)


def _hot_value(label: str | None) -> float | None:
    """What the number at a place of a multi-hot row says, NaN for unknown; None if it cannot stand in one."""
    if label is None or label == "-1":
        return float("nan")
    try:
        value = float(label)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _is_digit(label: str | None) -> bool:
    return label is not None and label.isascii() and label.isdigit()
