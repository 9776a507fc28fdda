"""Labels and class names from the records of all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.classes import (
    MAX_CLASSES,
    Describe,
    Indexed,
    index_names,
    index_numbers,
    no_labels,
)
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.tfrecords.index import FileIndex

__all__ = ["make_labels"]


def make_labels(
    paths: Sequence[str],
    indexes: Sequence[FileIndex],
    *,
    classes: tuple[str, ...] | None,
    label_offset: int = 0,
    tags: bool | None = None,
) -> LabelsAndClasses:
    """The labels and the classes of all records, file after file.

    Args:
        paths: names of the files, for messages.
        indexes: the index of each file.
        classes: names of the classes; None means those in the records, otherwise "0" to "n-1".
        label_offset: the number of the first class in the records.
        tags: whether a record may have any number of labels; None means yes if any record does not have exactly one.

    Returns:
        `(labels, classes)`; labels are int32 `(num_records,)`, or `LabelRows` if they are tags.

    Raises:
        DataError: a label is not in `classes`, or some files number their classes and others name them.
    """
    _check_one_kind(paths, indexes)

    def describe(entry: int) -> str:
        """The name of the record that holds a label; `entry` counts the labels of all files."""
        for path, index in zip(paths, indexes, strict=True):
            if entry < len(index.labels):
                return f"{path}#{np.searchsorted(np.cumsum(index.counts), entry, side='right')}"
            entry -= len(index.labels)
        raise IndexError(entry)

    if any(index.by_name for index in indexes):
        labels, classes = _index_names(indexes, classes, describe)
    else:
        labels, classes = _index_numbers(indexes, classes, label_offset, paths[0], describe)
    if not classes:
        raise no_labels(paths[0])
    if tags is None:
        tags = _has_tags(paths, indexes)
    if not tags:
        return labels, classes
    starts = np.zeros(sum(len(index) for index in indexes) + 1, np.int64)
    np.cumsum(np.concatenate([index.counts for index in indexes]), out=starts[1:])
    # In the order of the file, on which the fingerprints of earlier runs are based.
    return LabelRows(starts, labels, np.ones(len(labels), np.float32)), classes


def _check_one_kind(paths: Sequence[str], indexes: Sequence[FileIndex]) -> None:
    kinds = {index.by_name: path for path, index in zip(paths, indexes, strict=True) if len(index.labels)}
    if len(kinds) == 2:
        raise DataError(f"{kinds[True]} gives classes as text, {kinds[False]} as numbers. Read one kind at a time.")


def _index_names(indexes: Sequence[FileIndex], classes: tuple[str, ...] | None, describe: Describe) -> Indexed:
    names: list[str] = []  # of one file after the other
    ids = []
    for index in indexes:
        ids.append(index.labels + len(names))
        names += [index.names[number] for number in range(len(index.names))] if index.by_name else []
    name_ids = np.concatenate(ids)
    indices, classes = index_names(names, classes, lambda number: describe(int(np.argmax(name_ids == number))))
    return indices[name_ids], classes


def _index_numbers(
    indexes: Sequence[FileIndex],
    class_names: tuple[str, ...] | None,
    label_offset: int,
    origin: str,
    describe: Describe,
) -> Indexed:
    numbers = np.concatenate([index.labels for index in indexes])
    names = _names_of_numbers(indexes, label_offset)
    counts_from_one = class_names is not None and label_offset == 0 and numbers.max(initial=0) == len(class_names)
    limit = label_offset + (MAX_CLASSES if class_names is None else len(class_names))
    bad = numbers[(numbers < label_offset) | (numbers >= limit)]  # the message names the first
    where = LabelLocation(
        origin,
        describe,
        cure="-1 often means that the label is unknown." if len(bad) and bad[0] == -1 else "",
        range_cure="If labels count from 1, give label_offset=1." if counts_from_one else "",
    )
    labels, classes = index_numbers(numbers, class_names, where, first=label_offset, names=names)
    if class_names is None:
        classes = _distinguish(classes)
    else:
        _check_agreement(names, class_names, label_offset)
    if label_offset == 0 and numbers.min(initial=1) == 1:
        logging.info("No record has the label 0. If labels count from 1, give label_offset=1.")
    return labels, classes


def _names_of_numbers(indexes: Sequence[FileIndex], label_offset: int) -> dict[int, str]:
    """Names by class index; none if they contradict each other."""
    names: dict[int, str] = {}
    contradiction = ""
    for index in indexes:
        contradiction = contradiction or index.contradiction
        for label, name in index.names.items():
            if names.setdefault(label - label_offset, name) != name:
                contradiction = f"label {label} is called {names[label - label_offset]!r} and {name!r}"
    if contradiction:
        logging.warning("Classes are called by their numbers: %s.", contradiction)
        return {}
    return names


def _distinguish(classes: tuple[str, ...]) -> tuple[str, ...]:
    duplicates = {name for name, count in Counter(classes).items() if count > 1}  # ImageNet has two kinds of crane
    return tuple(f"{name} ({index})" if name in duplicates else name for index, name in enumerate(classes))


def _check_agreement(names: dict[int, str], classes: tuple[str, ...], label_offset: int) -> None:
    """Raises DataError if a declared class has the name of another class of the records; new names are allowed."""
    for index, name in names.items():
        if name in classes and 0 <= index < len(classes) and classes[index] != name and name not in classes[index]:
            raise DataError(
                f"The records call label {index + label_offset} {name!r}, but `classes` has {classes[index]!r} there. "
                "Leave `classes` out and reorder with .with_classes(...), or change label_offset."
            )


def _has_tags(paths: Sequence[str], indexes: Sequence[FileIndex]) -> bool:
    for path, index in zip(paths, indexes, strict=True):
        if index.several_at >= 0:
            count = index.counts[index.several_at]
            logging.info("Labels are tags, because %s#%d may have several (%d).", path, index.several_at, count)
            return True
    return False
