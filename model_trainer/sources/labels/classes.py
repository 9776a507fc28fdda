"""From names or numbers to class indices: the class list, given or found, and what has no place in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.labels.location import LabelLocation

__all__ = ["MAX_CLASSES", "index_names", "index_numbers", "no_class_number", "no_labels", "numbered_classes"]

# What a network with so many outputs would need, no machine has; and above, not every whole number is a float32.
MAX_CLASSES = 2**24

Describe = Callable[[int], str]
Indexed = tuple[np.ndarray, tuple[str, ...]]  # class indices, and the class list


def index_names(names: Sequence[str], given: tuple[str, ...] | None, place: Describe) -> Indexed:
    """`(indices, classes)`: int32 `(len(names),)` the class index of each name, and the class list.

    Args:
        names: of each image, or each different one once.
        given: the class list; None takes the names, sorted.
        place: from a position in `names` to where that stands, for messages: "train.csv line 17".

    Raises:
        DataError: a name is not in the given list; names the place of the first.

    Example:
        >>> index_names(["dog", "cat", "dog"], None, "photo {}".format)
        (array([1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    classes = tuple(sorted(set(names))) if given is None else given
    index_of = {name: index for index, name in enumerate(classes)}
    for position, name in enumerate(names):
        if name not in index_of:
            raise DataError(f"{place(position)}: label {name!r} is not a class.{nearest(name, classes)}")
    return np.array([index_of[name] for name in names], np.int32), classes


def index_numbers(
    numbers: np.ndarray,
    given: tuple[str, ...] | None,
    where: LabelLocation,
    *,
    first: int = 0,
    names: Mapping[int, str] = MappingProxyType({}),
) -> Indexed:
    """`(indices, classes)`: int32 `(k,)` the class index of each number, and the class list.

    Args:
        numbers: `(k,)` whole or floating, of all labels, or each different one once.
        given: the class list; None makes one up to the largest number, see `numbered_classes`.
        where: `where.row` takes a position in `numbers`.
        first: the number of the first class.
        names: of class indices, where they are known; not used where `given`.

    Raises:
        DataError: a number cannot be that of a class, or is not that of a given one; names the place of the first.

    Example:
        >>> index_numbers(np.array([2, 1]), None, LabelLocation("train.rec", "train.rec#{}".format), first=1)
        (array([1, 0], dtype=int32), ('0', '1'))
    """
    good = (numbers >= first) & (numbers < first + (MAX_CLASSES if given is None else len(given)))
    if numbers.dtype.kind == "f":
        good &= np.floor(numbers) == numbers
    if not good.all():
        position = int(np.argmin(good))
        raise DataError(f"{where.row(position)}: {_what_is_wrong(numbers[position].item(), given, first, where)}")
    indices = (numbers - first).astype(np.int32)
    if given is not None:
        return indices, given
    return indices, numbered_classes(max([int(indices.max(initial=-1)), *names]) + 1, names)


def _what_is_wrong(number: float, given: tuple[str, ...] | None, first: int, where: LabelLocation) -> str:
    is_whole = number % 1 == 0
    written = str(int(number)) if is_whole else f"{number:g}"
    if given is None or number < first or not is_whole:
        return no_class_number(written, where.cure, first=first)
    return (
        f"label {written} is not a class: the {len(given)} given ones have the numbers {first} to "
        f"{first + len(given) - 1}.{_after(where.range_cure)}"
    )


def numbered_classes(count: int, names: Mapping[int, str] = MappingProxyType({})) -> tuple[str, ...]:
    """The numbers from "0" on, and their `names` where they have one; two classes may so have the same name."""
    return tuple(names.get(index, str(index)) for index in range(count))


def no_class_number(written: str, cure: str = "", *, first: int = 0) -> str:
    """What is wrong with a label that should be the number of a class.

    Args:
        written: the label for the message: `'x'`, `-1`.
    """
    return (
        f"label {written} should be a class number, a whole number from {first} to {first + MAX_CLASSES - 1}."
        f"{_after(cure)}"
    )


def no_labels(origin: str) -> DataError:
    """The error where the classes are to be found, but no image has one."""
    return DataError(f"{origin}: no image has a label. Name the classes: classes=(...).")


def _after(sentence: str) -> str:
    return f" {sentence}" if sentence else ""
