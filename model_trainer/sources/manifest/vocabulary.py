"""The labels of a manifest as they are written, and the classes that they mean."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.messages import nearest

__all__ = ["LabelsAs", "Vocabulary", "as_text", "find_classes", "is_number"]

LabelsAs = Literal["auto", "names", "indices", "multi_hot"]
_MOST_CLASSES = 2**24  # what a network with so many outputs would need, no machine has
Where = Callable[[int], str]  # from the place of a row to what messages call it


class Vocabulary:
    """Each different label once, numbered in the order of appearance.

    Attributes:
        ids: number by label; None is one that nobody knows.
        places: the place of the row where each came first.
    """

    def __init__(self) -> None:
        self.ids: dict[str | None, int] = {}
        self.places = array("q")

    def id_of(self, label: Any, place: int) -> int:
        """The number of the label, a new one if it is new.

        Raises:
            DataError: it is empty, or no label at all.
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
        self.ids[label] = len(self.places)
        self.places.append(place)
        return len(self.places) - 1


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


def find_classes(
    vocabulary: Vocabulary,
    labels_as: LabelsAs,
    given: tuple[str, ...] | None,
    names: Mapping[int, str],
    where: Where,
    origin: str,
) -> tuple[tuple[str, ...], np.ndarray]:
    """`(classes, positions)`: the class list, and int32 the place in it of each label of `vocabulary`.

    Args:
        labels_as: "names", "indices" for class numbers, or "auto": numbers if all are, unless `given` has them as
            names, or they are so far apart that they can only be names.
        given: the class list; None takes the sorted labels, and of numbers "0" to the largest.
        names: of class numbers, where the manifest knows them.
        where: what messages call a row.
        origin: the manifest, for messages.

    Raises:
        DataError: a label is not a class; names the row where it first stands.
    """
    unknown = vocabulary.ids.get(None)
    if unknown is not None:
        raise DataError(f"{where(vocabulary.places[unknown])}: a label is null, which only multi-hot rows can have.")
    labels = [label for label in vocabulary.ids if label is not None]
    if not labels and given is None:
        raise DataError(f"{origin}: no image has a label. Name the classes: classes=(...).")

    def wrong(label: str, problem: str) -> DataError:
        place = vocabulary.places[vocabulary.ids[label]]
        return DataError(f"{where(place)}: label {label!r} {problem}")

    if not _are_numbers(labels, labels_as, given, origin, wrong):
        classes = tuple(sorted(labels)) if given is None else given
        place_of = {name: place for place, name in enumerate(classes)}
        for label in labels:
            if label not in place_of:
                raise wrong(label, f"is not a class.{nearest(label, classes)}")
        return classes, np.array([place_of[label] for label in labels], np.int32)
    numbers = [int(label) for label in labels]
    if given is None:
        return _classes_of_numbers(max([*numbers, *names]), names, origin), np.array(numbers, np.int32)
    place_of = {name: place for place, name in enumerate(given)}
    for label, number in zip(labels, numbers, strict=True):
        if number in names and names[number] not in place_of:
            raise wrong(label, f"has the name {names[number]!r}, which is not a class.{nearest(names[number], given)}")
        if number not in names and number >= len(given):
            raise wrong(label, f"is not a class: the {len(given)} given ones have the numbers 0 to {len(given) - 1}.")
    return given, np.array([place_of[names[n]] if n in names else n for n in numbers], np.int32)


def _are_numbers(
    labels: list[str],
    labels_as: LabelsAs,
    given: tuple[str, ...] | None,
    origin: str,
    wrong: Callable[[str, str], DataError],
) -> bool:
    if labels_as == "names" or (labels_as == "auto" and not all(map(is_number, labels))):
        return False
    if labels_as == "auto" and given is not None and any(map(is_number, given)):
        return False
    for label in labels:
        if not is_number(label) or label.startswith("-"):
            raise wrong(label, "should be a class number, 0 or above. Say labels='names' if it is the class's name.")
    largest = max(map(int, labels), default=0)
    if largest > _MOST_CLASSES:
        if labels_as == "auto":
            return False
        raise wrong(str(largest), f"should be a class number of at most {_MOST_CLASSES}.")
    if labels_as == "auto" and given is None and largest >= max(1000, 10 * len(labels)):
        logging.warning(
            "%s: %d different numbers up to %d are read as names of classes. Say labels='indices' if they are "
            "class numbers.",
            *(origin, len(labels), largest),
        )
        return False
    return True


def _classes_of_numbers(largest: int, names: Mapping[int, str], origin: str) -> tuple[str, ...]:
    classes = tuple(names.get(number, str(number)) for number in range(largest + 1))
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"{origin}: two class numbers have the name {twice!r}. Name the classes: classes=(...).")
    return classes
