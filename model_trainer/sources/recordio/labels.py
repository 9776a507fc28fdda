"""What the numbers of the records mean: one class, a multi-hot row, or class numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.recordio.guess import guess_meaning, looks_like_boxes
from model_trainer.sources.recordio.label_floats import LabelFloats

__all__ = ["LabelsAs", "make_labels"]

LabelsAs = Literal["auto", "single", "multi_hot", "indices"]

# Above, not every whole number is a float32, so the class that was meant is not known.
_MOST_CLASSES = 2**24

Labels = np.ndarray | LabelRows


def make_labels(
    floats: LabelFloats,
    labels: LabelsAs,
    classes: tuple[str, ...] | None,
    origin: str,
    name_of: Callable[[int], str],
) -> tuple[Labels, tuple[str, ...]]:
    """`(labels, classes)`: int32 `(num_records,)` or `LabelRows`, and the names of the classes.

    Args:
        labels: what the numbers are; "auto" tells it from the numbers, and says so in one line.
        classes: names of the classes; None makes "0" to "n-1".
        origin: the file, for messages.
        name_of: what messages call a record.

    Raises:
        DataError: a number is none of what it should be, or has no class; names the record.
    """
    read: Labels
    one_each = bool(np.all(floats.widths == 1))
    meaning = guess_meaning(floats, classes, origin) if labels == "auto" else labels
    if meaning == "single":
        read, num_classes = _single(floats, name_of)
    elif meaning == "multi_hot" and (not one_each or (classes is not None and len(classes) == 1)):
        read, num_classes = _multi_hot(floats, classes, name_of)
    else:
        if one_each:
            _warn_of_one_each(meaning, origin)
        read, num_classes = _indices(floats, name_of)
    if classes is None:
        return read, tuple(map(str, range(num_classes)))
    if num_classes > len(classes):
        raise _no_name(read, classes, name_of)
    return read, classes


def _single(floats: LabelFloats, name_of: Callable[[int], str]) -> tuple[np.ndarray, int]:
    several = np.flatnonzero(floats.widths != 1)
    if len(several):
        row = int(several[0])
        raise DataError(
            f"{name_of(row)} carries {floats.widths[row]} labels, one was expected. "
            "Say labels='multi_hot' or labels='indices'."
        )
    _check_whole(floats, floats.entries.values >= 0, name_of)
    read = np.zeros(len(floats), np.int32)
    read[floats.entries.row_of_entry()] = floats.entries.values
    return read, int(read.max()) + 1


def _multi_hot(
    floats: LabelFloats, classes: tuple[str, ...] | None, name_of: Callable[[int], str]
) -> tuple[LabelRows, int]:
    width = int(floats.widths[0]) if classes is None else len(classes)
    others = np.flatnonzero(floats.widths != width)
    if len(others):
        row = int(others[0])
        what = f"{name_of(0)} carries {width}" if classes is None else f"there are {width} classes"
        raise DataError(
            f"{name_of(row)} carries {floats.widths[row]} labels, but {what}; in multi-hot rows each class has its "
            f"place. Say labels='indices' if they are class numbers."
        )
    values = floats.entries.values
    wrong = np.flatnonzero(~((values == -1) | ((values > 0) & (values <= 1))))
    if len(wrong):
        raise DataError(
            f"{name_of(floats.row_of(wrong[0]))} carries {values[wrong[0]]:g} at place "
            f"{floats.entries.classes[wrong[0]]}; a multi-hot row holds 0 and 1, -1 for unknown, or something between "
            f"0 and 1. Say labels='indices' if they are class numbers."
        )
    known = np.where(values == -1, np.float32(np.nan), values)
    return LabelRows(floats.entries.starts, floats.entries.classes, known), width


def _indices(floats: LabelFloats, name_of: Callable[[int], str]) -> tuple[LabelRows, int]:
    values = floats.entries.values
    _check_whole(floats, values >= -1, name_of)
    rows = floats.entries.row_of_entry()
    is_class = values > 0  # -1 fills rows up to one length, as MXNet's iterators want them
    # Zeros are not among the entries: a row that is wider than its entries names class 0.
    of_zero = np.flatnonzero(floats.widths > np.diff(floats.entries.starts))
    rows = np.concatenate([of_zero, rows[is_class]])
    classes = np.concatenate([np.zeros(len(of_zero), np.int32), values[is_class].astype(np.int32)])
    order = np.lexsort((classes, rows))
    rows, classes = rows[order], classes[order]
    first = np.ones(len(rows), bool)
    first[1:] = (np.diff(rows) != 0) | (np.diff(classes) != 0)
    rows, classes = rows[first], classes[first]
    starts = np.searchsorted(rows, np.arange(len(floats) + 1)).astype(np.int64)
    return LabelRows(starts, classes, np.ones(len(classes), np.float32)), int(classes.max(initial=-1)) + 1


def _check_whole(floats: LabelFloats, in_range: np.ndarray, name_of: Callable[[int], str]) -> None:
    values = floats.entries.values
    good = in_range & (values < _MOST_CLASSES)
    good &= np.floor(values) == values
    wrong = np.flatnonzero(~good)
    if not len(wrong):
        return
    row = floats.row_of(wrong[0])
    boxes = looks_like_boxes(floats.take(np.array([row])))
    raise DataError(
        f"{name_of(row)} carries the label {values[wrong[0]]:g}; a class is a whole number from 0 to "
        f"{_MOST_CLASSES - 1}. "
        + (
            "Its labels look like MXNet's boxes for detection, which RecordIO does not read."
            if boxes
            else "Give the labels by `list`, or pack the file again with class numbers."
        )
    )


def _no_name(labels: Labels, classes: tuple[str, ...], name_of: Callable[[int], str]) -> DataError:
    if isinstance(labels, LabelRows):
        entry = int(np.argmax(labels.classes >= len(classes)))
        row, label = int(np.searchsorted(labels.starts, entry, side="right")) - 1, int(labels.classes[entry])
    else:
        row = int(np.argmax(labels >= len(classes)))
        label = int(labels[row])
    return DataError(
        f"{name_of(row)} carries the label {label}, but there are only {len(classes)} classes, 0 to "
        f"{len(classes) - 1}. Name all of them in `classes`, in the order of their numbers."
    )


def _warn_of_one_each(meaning: str, origin: str) -> None:
    logging.warning(
        "%s: labels=%r expects several labels, but each record carries one, which was read as its class number. "
        "Without --pack-label im2rec keeps only the first label of each line: pack the file again with it, or give "
        "the list, list='train.lst', which still has all of them.",
        origin,
        meaning,
    )
