"""Tags, any number of labels per image: converts text to class indices as sparse rows."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.multi_hot import (
    VALID_MULTI_HOT,
    fits_multi_hot,
    interpret_multi_hot,
    log_multi_hot,
)
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.labels.text_labels import LabelFormat, Vocabulary, first_positions, index_labels

__all__ = ["ManyLabels", "TagCollector", "tag_rows"]

# The labels of many rows: the distinct labels in the order of their first row (a label may occur more than once); their
# indices in the rows, one row after the other; and the number of labels in each row.
ManyLabels = tuple[Sequence[Any], np.ndarray, np.ndarray]


def tag_rows(keys: np.ndarray, num_rows: int, num_classes: int) -> LabelRows:
    """Sparse rows of tags, without duplicates and in the order of the classes.

    Args:
        keys: int64 `(k,)`, `row * num_classes + class index` of each tag, in any order; overwritten.
        num_rows, num_classes: the shape of the labels.
    """
    keys.sort()  # np.unique takes five times as long, and copies
    is_first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    if not is_first.all():
        keys = keys[is_first]
    return _rows_of_keys(keys, np.ones(len(keys), np.float32), num_rows, num_classes)


class _TextRows:
    """Collects any number of labels per row: 8 bytes per row and 4 per label."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self.flat = array("i")
        self.starts = array("q", [0])
        self.first_repeat: int | None = None  # the first row that contains a label twice

    def add(self, labels: Sequence[Any]) -> None:
        row = len(self.starts) - 1
        ids = [self.vocabulary.id_of(label, row) for label in labels]
        self.flat.extend(ids)
        self.starts.append(len(self.flat))
        if self.first_repeat is None and len(set(ids)) < len(ids):
            self.first_repeat = row

    def extend(self, labels: Sequence[Any], codes: np.ndarray, widths: np.ndarray) -> None:
        first_row, num_rows = len(self.starts) - 1, len(widths)
        rows = np.repeat(np.arange(num_rows), widths)
        first = rows[first_positions(codes, len(labels))] if len(labels) else rows
        ids = [self.vocabulary.id_of(label, first_row + row) for label, row in zip(labels, first.tolist(), strict=True)]
        flat = np.array(ids, np.int32)[codes]
        if self.first_repeat is None and widths.max(initial=0) > 1:
            keys = np.sort(rows * len(self.vocabulary.rows) + flat)
            repeats = keys[1:][keys[1:] == keys[:-1]]
            self.first_repeat = first_row + int(repeats[0]) // len(self.vocabulary.rows) if len(repeats) else None
        self.starts.frombytes((np.cumsum(widths, dtype=np.int64) + len(self.flat)).tobytes())
        self.flat.frombytes(flat.tobytes())

    def ids(self) -> np.ndarray:
        return np.frombuffer(self.flat, np.int32)

    def widths(self) -> np.ndarray:
        return np.diff(np.frombuffer(self.starts, np.int64))

    def tag_rows(self, indices: np.ndarray, num_classes: int) -> LabelRows:
        """The labels as sparse rows; `indices` has the class index of each label of the vocabulary."""
        num_rows = len(self.starts) - 1
        keys = np.repeat(np.arange(num_rows), self.widths())
        keys *= num_classes
        keys += indices[self.ids()]
        return tag_rows(keys, num_rows, num_classes)


@final
class TagCollector:
    """Collects labels written as names, class indices or multi-hot rows, optionally with unknown (masked) labels.

    The result takes 8 bytes per row and 8 per label. While it is collected, each number of a multi-hot row takes 4
    bytes, and briefly 9.
    """

    def __init__(self) -> None:
        self.present, self.unknown = _TextRows(), _TextRows()

    def add(self, labels: Sequence[Any], unknown: Sequence[Any] = ()) -> None:
        """Adds the labels of the next row.

        Raises:
            DataError: a label is invalid; the message does not name the row.
        """
        self.present.add(labels)
        self.unknown.add(unknown)  # even if empty: a later row may be the first to have some

    def extend(self, present: ManyLabels, unknown: ManyLabels | None) -> None:
        """Adds the labels of the next rows; without `unknown`, no row has unknown labels.

        Raises:
            DataError: a label is invalid; the message does not name the row.
        """
        self.present.extend(*present)
        num_rows = len(present[2])
        self.unknown.extend(*(unknown or ((), np.zeros(0, np.int64), np.zeros(num_rows, np.int64))))

    def one_each(self) -> bool:
        """Whether each row has exactly one label."""
        return bool(np.all(self.present.widths() == 1))

    def interpret(
        self,
        label_format: LabelFormat,
        class_names: tuple[str, ...] | None,
        names: Mapping[int, str],
        where: LabelLocation,
    ) -> LabelsAndClasses:
        """Rows of tags, and the class list.

        Args:
            label_format: how labels are written; "auto" reads lists of equal length with numbers from 0 to 1, or -1 or
                null for unknown, as multi-hot rows, other integers as class indices, and anything else as names.
            class_names: the class list, if declared.
            names: names of class indices; if there are any, every number is a class index.
            where: for messages.

        Raises:
            DataError: labels are inconsistent, or not in the class list; the message names the row.
        """
        if label_format == "multi_hot" or (label_format == "auto" and not names and self._fits_multi_hot(class_names)):
            return self._multi_hot(label_format, class_names, where)
        vocabulary, unknown = self.present.vocabulary, self.unknown.vocabulary
        # Labels that are only ever unknown belong to the class list, too.
        ids = [vocabulary.id_of(label, row) for label, row in zip(unknown.ids, unknown.rows, strict=True)]
        meaning: LabelFormat = "indices" if names and label_format == "auto" else label_format
        indices, classes = index_labels(vocabulary, meaning, class_names, names, where)
        all_digits = all(map(_is_digit, vocabulary.ids))
        if label_format == "auto" and vocabulary.ids and all_digits:
            logging.info("%s holds class indices, labels='indices'.", where.all_labels)
        if self.present.first_repeat is not None and all_digits:
            raise DataError(
                f"{where.labels_of(self.present.first_repeat)} has a class index twice. If these are multi-hot rows, "
                "all of them need the same length."
            )
        rows = self.present.tag_rows(indices, len(classes))
        return self._with_unknown(rows, indices[ids], len(classes), where), classes

    def _fits_multi_hot(self, class_names: tuple[str, ...] | None) -> bool:
        values = [_multi_hot_value(label) for label in self.present.vocabulary.ids]
        return None not in values and fits_multi_hot(self.present.widths(), np.array(values, np.float32), class_names)

    def _multi_hot(
        self, label_format: LabelFormat, class_names: tuple[str, ...] | None, where: LabelLocation
    ) -> LabelsAndClasses:
        vocabulary = self.present.vocabulary
        values = {label: _multi_hot_value(label) for label in vocabulary.ids}
        value_of_id = np.array([value or 0.0 for value in values.values()], np.float32)
        rows = NumberRows.of_flat(self.present.widths(), value_of_id[self.present.ids()])
        labels, classes = interpret_multi_hot(rows, class_names, where)
        holds = VALID_MULTI_HOT.format(unknown="-1 or null")
        for label, row in zip(values, vocabulary.rows, strict=True):
            if values[label] is None:
                raise DataError(f"{where.labels_of(row)} has {label!r}; {holds}")
        if label_format == "auto":
            log_multi_hot(rows, where)
        unknown, _ = index_labels(self.unknown.vocabulary, "auto", classes, {}, where)
        return self._with_unknown(labels, unknown, len(classes), where), classes

    def _with_unknown(self, rows: LabelRows, indices: np.ndarray, num_classes: int, where: LabelLocation) -> LabelRows:
        if not len(self.unknown.flat):
            return rows
        unknown_rows = self.unknown.tag_rows(indices, num_classes)
        keys, unknown_keys = _keys_of_rows(rows, num_classes), _keys_of_rows(unknown_rows, num_classes)
        contradictions = np.intersect1d(keys[~np.isnan(rows.values)], unknown_keys)
        if len(contradictions):
            raise DataError(
                f"{where.row(int(contradictions[0]) // num_classes)}: a label of {where.column!r} is unknown as well; "
                "it cannot be both."
            )
        new = np.setdiff1d(unknown_keys, keys)
        keys = np.concatenate([keys, new])
        values = np.concatenate([rows.values, np.full(len(new), np.nan, np.float32)])
        order = np.argsort(keys, kind="stable")
        return _rows_of_keys(keys[order], values[order], len(rows), num_classes)


def _keys_of_rows(rows: LabelRows, num_classes: int) -> np.ndarray:
    """int64: `row * num_classes + class` of each entry."""
    return rows.row_of_entry() * num_classes + rows.classes


def _rows_of_keys(keys: np.ndarray, values: np.ndarray, num_rows: int, num_classes: int) -> LabelRows:
    """Sparse rows from sorted keys, which are overwritten, because a copy would determine the peak memory."""
    starts = np.searchsorted(keys, np.arange(num_rows + 1, dtype=np.int64) * num_classes)
    keys %= num_classes
    return LabelRows(starts.astype(np.int64), keys.astype(np.int32), values)


def _multi_hot_value(label: str | None) -> float | None:
    """The label as a number of a multi-hot row, -1 for unknown; None if it cannot be one."""
    if label is None or label == "-1":
        return -1.0
    try:
        value = float(label)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _is_digit(label: str | None) -> bool:
    return label is not None and label.isascii() and label.isdigit()
