"""Labels and class names from what the records of all files say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.tfrecords.index import FileIndex

__all__ = ["make_labels"]

_MOST_CLASSES = 10_000_000  # a number above is an id or a hash


def make_labels(
    paths: Sequence[str],
    indexes: Sequence[FileIndex],
    *,
    classes: tuple[str, ...] | None,
    label_offset: int = 0,
    tags: bool | None = None,
) -> tuple[np.ndarray | LabelRows, tuple[str, ...]]:
    """`(labels, classes)` of all records, file after file; int32 `(num_records,)`, or rows where they are tags.

    Args:
        paths: names of the files, for messages.
        classes: names of the classes; None takes those that the records give, otherwise "0" to "n-1".
        label_offset: the number that records give the first class.
        tags: whether each record may have any number of labels; None looks whether one has not exactly one.

    Raises:
        DataError: a label is no position in `classes`, or some files number their classes and others name them.
    """
    _check_one_kind(paths, indexes)
    if any(index.by_name for index in indexes):
        numbers, classes = _numbers_of_names(paths, indexes, classes)
    else:
        numbers = [index.labels - label_offset for index in indexes]
        _check_range(paths, indexes, numbers, classes, label_offset)
        names = _names_of_numbers(indexes, label_offset)
        if classes is None:
            classes = _named(max((int(each.max(initial=-1)) for each in numbers), default=-1) + 1, names)
        _check_agreement(names, classes, label_offset)
        if label_offset == 0 and min((int(each.min(initial=1)) for each in numbers), default=0) == 1:
            logging.info("No record has the label 0. If labels count from 1, give label_offset=1.")
    if not classes:
        raise DataError(f"{paths[0]}: no record has a label, so there are no classes. Name them: classes=(...).")
    labels = np.concatenate([each.astype(np.int32) for each in numbers])
    if tags is None:
        tags = _has_tags(paths, indexes)
    if not tags:
        return labels, classes
    starts = np.zeros(sum(len(index) for index in indexes) + 1, np.int64)
    np.cumsum(np.concatenate([index.counts for index in indexes]), out=starts[1:])
    return LabelRows(starts, labels, np.ones(len(labels), np.float32)), classes


def _check_one_kind(paths: Sequence[str], indexes: Sequence[FileIndex]) -> None:
    kinds = {index.by_name: path for path, index in zip(paths, indexes, strict=True) if len(index.labels)}
    if len(kinds) == 2:
        raise DataError(f"{kinds[True]} gives classes as text, {kinds[False]} as numbers. Read one kind at a time.")


def _numbers_of_names(
    paths: Sequence[str], indexes: Sequence[FileIndex], classes: tuple[str, ...] | None
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    if classes is None:
        classes = tuple(sorted({name for index in indexes for name in index.names.values()}))
    places = {name: place for place, name in enumerate(classes)}
    numbers = []
    for path, index in zip(paths, indexes, strict=True):
        own = [index.names[number] for number in range(len(index.names))] if index.by_name else []
        for number, name in enumerate(own):
            if name not in places:
                first = _record_of_entry(index, int(np.argmax(index.labels == number)))
                raise DataError(
                    f"{path}#{first} has the class {name!r}, which is not one of the given classes."
                    f"{nearest(name, classes)}"
                )
        numbers.append(np.array([places[name] for name in own], np.int64)[index.labels])
    return numbers, classes


def _check_range(
    paths: Sequence[str],
    indexes: Sequence[FileIndex],
    numbers: list[np.ndarray],
    classes: tuple[str, ...] | None,
    label_offset: int,
) -> None:
    num_classes = _MOST_CLASSES if classes is None else len(classes)
    for path, index, each in zip(paths, indexes, numbers, strict=True):
        wrong = np.flatnonzero((each < 0) | (each >= num_classes))
        if not len(wrong):
            continue
        name, label = f"{path}#{_record_of_entry(index, int(wrong[0]))}", int(index.labels[wrong[0]])
        if label < label_offset:
            cure = "It counts from the first class; -1 often means that the label is not known."
            raise DataError(f"{name} has the label {label}; the first class is {label_offset}. {cure}")
        if classes is None:
            raise DataError(f"{name} has the label {label}, which cannot be the number of a class.")
        cure = " If labels count from 1, give label_offset=1." if label == num_classes and label_offset == 0 else ""
        raise DataError(
            f"{name} has the label {label}, but {num_classes} classes are given: "
            f"{label_offset} to {label_offset + num_classes - 1}.{cure}"
        )


def _record_of_entry(index: FileIndex, entry: int) -> int:
    return int(np.searchsorted(np.cumsum(index.counts), entry, side="right"))


def _names_of_numbers(indexes: Sequence[FileIndex], label_offset: int) -> dict[int, str]:
    """Names by position; none at all where they contradict each other."""
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


def _named(num_classes: int, names: dict[int, str]) -> tuple[str, ...]:
    named = [names.get(place, str(place)) for place in range(num_classes)]
    often = {name for name, count in Counter(named).items() if count > 1}  # ImageNet has two kinds of crane
    return tuple(f"{name} ({place})" if name in often else name for place, name in enumerate(named))


def _check_agreement(names: dict[int, str], classes: tuple[str, ...], label_offset: int) -> None:
    """Given classes may be called otherwise than in the records, but not like another one there."""
    for place, name in names.items():
        if name in classes and 0 <= place < len(classes) and classes[place] != name and name not in classes[place]:
            raise DataError(
                f"The records call label {place + label_offset} {name!r}, but `classes` has {classes[place]!r} there. "
                "Leave `classes` out and reorder with .with_classes(...), or change label_offset."
            )


def _has_tags(paths: Sequence[str], indexes: Sequence[FileIndex]) -> bool:
    for path, index in zip(paths, indexes, strict=True):
        if index.several_at >= 0:
            count = index.counts[index.several_at]
            logging.info("Labels are tags, because %s#%d may have several (%d).", path, index.several_at, count)
            return True
    return False
