"""Labels written as text, class names or class indices, and their conversion to class indices."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.labels.classes import (
    MAX_CLASSES,
    Indexed,
    index_names,
    index_numbers,
    no_class_number,
    no_labels,
)
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation

__all__ = [
    "LabelFormat",
    "SingleLabelCollector",
    "Vocabulary",
    "as_text",
    "first_positions",
    "index_labels",
    "is_number",
]

LabelFormat = Literal["auto", "names", "indices", "multi_hot"]


class Vocabulary:
    """The distinct labels, numbered in the order of appearance.

    Attributes:
        ids: number by label; the label None is null or NaN in the file.
        rows: the row in which each label appears first.
    """

    def __init__(self) -> None:
        self.ids: dict[str | None, int] = {}
        self.rows = array("q")

    def id_of(self, label: Any, row: int) -> int:
        """The number of the label; a new label gets the next one.

        Raises:
            DataError: the label is empty or invalid; the message does not name the row.
        """
        if type(label) is not str:
            label = as_text(label)
        existing = self.ids.get(label)
        if existing is not None:
            return existing
        if label == "":
            raise DataError("a label is empty.")
        if label is not None and not _can_be_written(label):
            raise DataError(f"the label {label!r} cannot be written as text.")
        self.ids[label] = len(self.rows)
        self.rows.append(row)
        return len(self.rows) - 1


@final
class SingleLabelCollector:
    """Collects one label per image: 4 bytes per row."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self.ids = array("i")

    def add(self, label: Any) -> None:
        """Adds the label of the next row.

        Raises:
            DataError: the label is invalid; the message does not name the row.
        """
        self.ids.append(self.vocabulary.id_of(label, len(self.ids)))

    def extend(self, labels: Sequence[Any], codes: np.ndarray) -> None:
        """Adds the labels of the next rows.

        Args:
            labels: the distinct labels, in the order of their first row; a label may occur more than once.
            codes: int `(num_rows,)`, the index in `labels` of each row's label.

        Raises:
            DataError: a label is invalid; the message does not name the row.
        """
        rows = first_positions(codes, len(labels)) + len(self.ids)
        ids = [self.vocabulary.id_of(label, row) for label, row in zip(labels, rows.tolist(), strict=True)]
        self.ids.frombytes(np.array(ids, np.int32)[codes].tobytes())

    def interpret(
        self,
        label_format: LabelFormat,
        class_names: tuple[str, ...] | None,
        names: Mapping[int, str],
        where: LabelLocation,
    ) -> LabelsAndClasses:
        """Class indices, and the class list; see `index_labels`."""
        indices, classes = index_labels(self.vocabulary, label_format, class_names, names, where)
        return indices[np.frombuffer(self.ids, np.int32)], classes


def first_positions(codes: np.ndarray, count: int) -> np.ndarray:
    """int64 `(count,)`: where each number below `count` first occurs in `codes`."""
    first = np.zeros(count, np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # assigned backwards: of equal codes the first remains
    return first


def as_text(label: Any) -> str | None:
    """Converts a label to text, a float with an integer value to an integer, null and NaN to None.

    Raises:
        DataError: the label is a list or an object.
    """
    if label is None or label != label:
        return None
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, float):
        return str(int(label)) if label.is_integer() else repr(label)
    if isinstance(label, (str, int)):
        return str(label)
    raise DataError(f"expected one label, got {str(label)[:60]}.")


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can contain
        return False
    return True


def is_number(label: str | None) -> bool:
    """Whether the label is an integer in its usual notation; "007" and numbers of more than 18 digits are names."""
    digits = (label or "").removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        return False
    return (digits == "0" or digits[0] != "0") and label != "-0"


def index_labels(
    vocabulary: Vocabulary,
    label_format: LabelFormat,
    class_names: tuple[str, ...] | None,
    names: Mapping[int, str],
    where: LabelLocation,
) -> Indexed:
    """`(indices, classes)`: int32 the class index of each label of `vocabulary`, and the class list.

    Args:
        vocabulary: the distinct labels.
        label_format: "names", "indices" for class indices, or "auto": class indices if all are integers, unless
            `class_names` contains integers, or they are so far apart that they can only be names.
        class_names: the class list; None means the sorted labels, or for numbers "0" up to the maximum.
        names: names of class indices, if known; such a number means the class of that name in `class_names`.
        where: for messages.

    Raises:
        DataError: a label is not a class; the message names the row in which it first appears.
    """
    null_id = vocabulary.ids.get(None)
    if null_id is not None:
        raise DataError(f"{where.row(vocabulary.rows[null_id])}: a label is null, which only multi-hot rows can have.")
    labels = [label for label in vocabulary.ids if label is not None]
    if not labels and class_names is None:
        raise no_labels(where.origin)
    where = where.at(vocabulary.rows)
    if not _are_numbers(labels, label_format, class_names, where):
        return index_names(labels, class_names, where.row)
    numbers = list(map(int, labels))
    if class_names is None:
        indices, classes = index_numbers(np.array(numbers, np.int64), None, where, names=names)
        _check_each_once(classes, where.origin)
        return indices, classes
    index_of = {name: index for index, name in enumerate(class_names)}
    for position, number in enumerate(numbers):
        if number in names and names[number] not in index_of:
            raise DataError(
                f"{where.row(position)}: label {labels[position]!r} has the name {names[number]!r}, which is not a "
                f"class.{nearest(names[number], class_names)}"
            )
    numbers = [index_of[names[number]] if number in names else number for number in numbers]
    return index_numbers(np.array(numbers, np.int64), class_names, where)


def _are_numbers(
    labels: list[str], label_format: LabelFormat, class_names: tuple[str, ...] | None, where: LabelLocation
) -> bool:
    if label_format == "names" or (label_format == "auto" and not all(map(is_number, labels))):
        return False
    if label_format == "auto" and class_names is not None and any(map(is_number, class_names)):
        return False
    for position, label in enumerate(labels):
        if not is_number(label):
            raise DataError(f"{where.row(position)}: {no_class_number(repr(label), where.cure)}")
    if label_format == "indices" or any(label.startswith("-") for label in labels):
        return True  # an invalid number is reported when it is converted to an index
    max_number = max(map(int, labels), default=0)
    if max_number >= MAX_CLASSES:
        return False
    if class_names is None and max_number >= max(1000, 10 * len(labels)):
        logging.warning(
            "%s: %d different numbers up to %d are read as names of classes. Set labels='indices' if they are "
            "class indices.",
            *(where.origin, len(labels), max_number),
        )
        return False
    return True


def _check_each_once(classes: tuple[str, ...], origin: str) -> None:
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"{origin}: two class indices have the name {twice!r}. Name the classes: classes=(...).")
