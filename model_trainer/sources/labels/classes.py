"""Converts names or numbers to class indices, with a declared or a collected class list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.labels.location import LabelLocation

__all__ = ["MAX_CLASSES", "index_names", "index_numbers", "no_class_number", "no_labels", "numbered_classes"]

# No machine has the memory for a network with more outputs; and float32 represents every integer up to here only.
MAX_CLASSES = 2**24

Describe = Callable[[int], str]
Indexed = tuple[np.ndarray, tuple[str, ...]]  # class indices, and the class list


def index_names(names: Sequence[str], class_names: tuple[str, ...] | None, describe: Describe) -> Indexed:
    """`(indices, classes)`: int32 `(len(names),)` the class index of each name, and the class list.

    Args:
        names: the class name of each image, or the distinct names.
        class_names: the class list; None means the sorted names.
        describe: from a position in `names` to its location, for messages: "train.csv line 17".

    Raises:
        DataError: a name is not in `class_names`; the message gives the location of the first.

    Example:
        >>> index_names(["dog", "cat", "dog"], None, "photo {}".format)
        (array([1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    classes = tuple(sorted(set(names))) if class_names is None else class_names
    index_of = {name: index for index, name in enumerate(classes)}
    for position, name in enumerate(names):
        if name not in index_of:
            raise DataError(f"{describe(position)}: label {name!r} is not a class.{nearest(name, classes)}")
    return np.array([index_of[name] for name in names], np.int32), classes


def index_numbers(
    numbers: np.ndarray,
    class_names: tuple[str, ...] | None,
    where: LabelLocation,
    *,
    first: int = 0,
    names: Mapping[int, str] = MappingProxyType({}),
) -> Indexed:
    """`(indices, classes)`: int32 `(k,)` the class index of each number, and the class list.

    Args:
        numbers: int or float `(k,)`, of all labels, or the distinct ones.
        class_names: the class list; None means one up to the maximum number, see `numbered_classes`.
        where: `where.row` takes a position in `numbers`.
        first: the number of the first class.
        names: names of class indices, if known; ignored with `class_names`.

    Raises:
        DataError: a number is not a valid class index, or not that of a declared class; the message gives the location
            of the first.

    Example:
        >>> index_numbers(np.array([2, 1]), None, LabelLocation("train.rec", "train.rec#{}".format), first=1)
        (array([1, 0], dtype=int32), ('0', '1'))
    """
    is_valid = (numbers >= first) & (numbers < first + (MAX_CLASSES if class_names is None else len(class_names)))
    if numbers.dtype.kind == "f":
        is_valid &= np.floor(numbers) == numbers
    if not is_valid.all():
        position = int(np.argmin(is_valid))
        raise DataError(f"{where.row(position)}: {_what_is_wrong(numbers[position].item(), class_names, first, where)}")
    indices = (numbers - first).astype(np.int32)
    if class_names is not None:
        return indices, class_names
    return indices, numbered_classes(max([int(indices.max(initial=-1)), *names]) + 1, names)


def _what_is_wrong(number: float, class_names: tuple[str, ...] | None, first: int, where: LabelLocation) -> str:
    is_whole = number % 1 == 0
    written = str(int(number)) if is_whole else f"{number:g}"
    if class_names is None or number < first or not is_whole:
        return no_class_number(written, where.cure, first=first)
    return (
        f"label {written} is not a class: the class indices are {first} to "
        f"{first + len(class_names) - 1}.{_after(where.range_cure)}"
    )


def numbered_classes(count: int, names: Mapping[int, str] = MappingProxyType({})) -> tuple[str, ...]:
    """Class names for `count` numbered classes: their `names`, or the numbers "0", "1" ...; names may repeat."""
    return tuple(names.get(index, str(index)) for index in range(count))


def no_class_number(written: str, cure: str = "", *, first: int = 0) -> str:
    """The message for a label that should be a class index.

    Args:
        written: the label as it should appear in the message: `'x'`, `-1`.
        cure: a sentence to append.
        first: the number of the first class.
    """
    return (
        f"label {written} should be a class index, a whole number from {first} to {first + MAX_CLASSES - 1}."
        f"{_after(cure)}"
    )


def no_labels(origin: str) -> DataError:
    """The error if the class list is to be collected from the labels, but no image has one."""
    return DataError(f"{origin}: no image has a label. Name the classes: classes=(...).")


def _after(sentence: str) -> str:
    return f" {sentence}" if sentence else ""
