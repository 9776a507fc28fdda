"""Labels written as text: each different one once; names of classes or class numbers."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
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
from model_trainer.sources.labels.kinds import Interpreted
from model_trainer.sources.labels.location import LabelLocation

__all__ = ["SingleTexts", "TextsAs", "Vocabulary", "as_text", "index_texts", "is_number"]

TextsAs = Literal["auto", "names", "indices", "multi_hot"]


class Vocabulary:
    """Each different label once, numbered in the order of appearance.

    Attributes:
        ids: number by label; None is one that nobody knows.
        rows: where each came first.
    """

    def __init__(self) -> None:
        self.ids: dict[str | None, int] = {}
        self.rows = array("q")

    def id_of(self, label: Any, row: int) -> int:
        """The number of the label, a new one if it is new.

        Raises:
            DataError: it is empty, or no label at all; says so without the place.
        """
        if type(label) is not str:
            label = as_text(label)
        known = self.ids.get(label)
        if known is not None:
            return known
        if label == "":
            raise DataError("a label is empty.")
        if label is not None and not _can_be_written(label):
            raise DataError(f"the label {label!r} cannot be written as text.")
        self.ids[label] = len(self.rows)
        self.rows.append(row)
        return len(self.rows) - 1


@final
class SingleTexts:
    """One label for each image: 4 bytes a row."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self.ids = array("i")

    def add(self, label: Any) -> None:
        """Takes the label of the next row.

        Raises:
            DataError: it is no label; says so without the place.
        """
        self.ids.append(self.vocabulary.id_of(label, len(self.ids)))

    def interpret(
        self, texts_as: TextsAs, given: tuple[str, ...] | None, names: Mapping[int, str], where: LabelLocation
    ) -> Interpreted:
        """Class indices, and the class list; see `index_texts`."""
        indices, classes = index_texts(self.vocabulary, texts_as, given, names, where)
        return indices[np.frombuffer(self.ids, np.int32)], classes


def as_text(label: Any) -> str | None:
    """The label as text, a whole number without decimals; null and NaN give None.

    Raises:
        DataError: it is a list or an object.
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
    except UnicodeEncodeError:  # half a character, as JSON can write it
        return False
    return True


def is_number(label: str | None) -> bool:
    """Whether the label is a whole number written the usual way; "007" and what exceeds 18 digits are names."""
    digits = (label or "").removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        return False
    return (digits == "0" or digits[0] != "0") and label != "-0"


def index_texts(
    vocabulary: Vocabulary,
    texts_as: TextsAs,
    given: tuple[str, ...] | None,
    names: Mapping[int, str],
    where: LabelLocation,
) -> Indexed:
    """`(indices, classes)`: int32 the class index of each label of `vocabulary`, and the class list.

    Args:
        texts_as: "names", "indices" for class numbers, or "auto": numbers if all are, unless `given` has them as
            names, or they are so far apart that they can only be names.
        given: the class list; None takes the sorted labels, and of numbers "0" to the largest.
        names: of class numbers, where they are known; those numbers then mean the given class of that name.

    Raises:
        DataError: a label is not a class; names the row where it first stands.
    """
    unknown = vocabulary.ids.get(None)
    if unknown is not None:
        raise DataError(f"{where.row(vocabulary.rows[unknown])}: a label is null, which only multi-hot rows can have.")
    labels = [label for label in vocabulary.ids if label is not None]
    if not labels and given is None:
        raise no_labels(where.origin)
    where = where.at(vocabulary.rows)
    if not _are_numbers(labels, texts_as, given, where):
        return index_names(labels, given, where.row)
    numbers = list(map(int, labels))
    if given is None:
        indices, classes = index_numbers(np.array(numbers, np.int64), None, where, names=names)
        _check_each_once(classes, where.origin)
        return indices, classes
    index_of = {name: index for index, name in enumerate(given)}
    for position, number in enumerate(numbers):
        if number in names and names[number] not in index_of:
            raise DataError(
                f"{where.row(position)}: label {labels[position]!r} has the name {names[number]!r}, which is not a "
                f"class.{nearest(names[number], given)}"
            )
    numbers = [index_of[names[number]] if number in names else number for number in numbers]
    return index_numbers(np.array(numbers, np.int64), given, where)


def _are_numbers(labels: list[str], texts_as: TextsAs, given: tuple[str, ...] | None, where: LabelLocation) -> bool:
    if texts_as == "names" or (texts_as == "auto" and not all(map(is_number, labels))):
        return False
    if texts_as == "auto" and given is not None and any(map(is_number, given)):
        return False
    for position, label in enumerate(labels):
        if not is_number(label):
            raise DataError(f"{where.row(position)}: {no_class_number(repr(label), where.cure)}")
    if texts_as == "indices" or any(label.startswith("-") for label in labels):
        return True  # what cannot be one is named when it gets its index
    largest = max(map(int, labels), default=0)
    if largest >= MAX_CLASSES:
        return False
    if given is None and largest >= max(1000, 10 * len(labels)):
        logging.warning(
            "%s: %d different numbers up to %d are read as names of classes. Say labels='indices' if they are "
            "class numbers.",
            *(where.origin, len(labels), largest),
        )
        return False
    return True


def _check_each_once(classes: tuple[str, ...], origin: str) -> None:
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"{origin}: two class numbers have the name {twice!r}. Name the classes: classes=(...).")
