"""Labels and class names from what the records of all files say."""

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
from model_trainer.sources.labels.kinds import Interpreted
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
) -> Interpreted:
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

    def place(entry: int) -> str:
        """The record to which a label belongs, of those of all files."""
        for path, index in zip(paths, indexes, strict=True):
            if entry < len(index.labels):
                return f"{path}#{np.searchsorted(np.cumsum(index.counts), entry, side='right')}"
            entry -= len(index.labels)
        raise IndexError(entry)

    if any(index.by_name for index in indexes):
        labels, classes = _index_names(indexes, classes, place)
    else:
        labels, classes = _index_numbers(indexes, classes, label_offset, paths[0], place)
    if not classes:
        raise no_labels(paths[0])
    if tags is None:
        tags = _has_tags(paths, indexes)
    if not tags:
        return labels, classes
    starts = np.zeros(sum(len(index) for index in indexes) + 1, np.int64)
    np.cumsum(np.concatenate([index.counts for index in indexes]), out=starts[1:])
    # In the order in which they are written, which the fingerprints of earlier runs have.
    return LabelRows(starts, labels, np.ones(len(labels), np.float32)), classes


def _check_one_kind(paths: Sequence[str], indexes: Sequence[FileIndex]) -> None:
    kinds = {index.by_name: path for path, index in zip(paths, indexes, strict=True) if len(index.labels)}
    if len(kinds) == 2:
        raise DataError(f"{kinds[True]} gives classes as text, {kinds[False]} as numbers. Read one kind at a time.")


def _index_names(indexes: Sequence[FileIndex], classes: tuple[str, ...] | None, place: Describe) -> Indexed:
    names: list[str] = []  # of one file after the other
    ids = []
    for index in indexes:
        ids.append(index.labels + len(names))
        names += [index.names[number] for number in range(len(index.names))] if index.by_name else []
    of_entry = np.concatenate(ids)
    indices, classes = index_names(names, classes, lambda number: place(int(np.argmax(of_entry == number))))
    return indices[of_entry], classes


def _index_numbers(
    indexes: Sequence[FileIndex], given: tuple[str, ...] | None, label_offset: int, origin: str, place: Describe
) -> Indexed:
    numbers = np.concatenate([index.labels for index in indexes])
    names = _names_of_numbers(indexes, label_offset)
    counts_from_one = given is not None and label_offset == 0 and numbers.max(initial=0) == len(given)
    limit = label_offset + (MAX_CLASSES if given is None else len(given))
    bad = numbers[(numbers < label_offset) | (numbers >= limit)]  # of which the first is named
    where = LabelLocation(
        origin,
        place,
        cure="-1 often means that the label is not known." if len(bad) and bad[0] == -1 else "",
        range_cure="If labels count from 1, give label_offset=1." if counts_from_one else "",
    )
    labels, classes = index_numbers(numbers, given, where, first=label_offset, names=names)
    if given is None:
        classes = _distinguish(classes)
    else:
        _check_agreement(names, given, label_offset)
    if label_offset == 0 and numbers.min(initial=1) == 1:
        logging.info("No record has the label 0. If labels count from 1, give label_offset=1.")
    return labels, classes


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


def _distinguish(classes: tuple[str, ...]) -> tuple[str, ...]:
    often = {name for name, count in Counter(classes).items() if count > 1}  # ImageNet has two kinds of crane
    return tuple(f"{name} ({place})" if name in often else name for place, name in enumerate(classes))


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
