"""The values of a row, whether they come as text or as JSON."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from model_trainer.errors import DataError

__all__ = ["crop_of", "file_of", "is_missing", "items_of", "looks_like_list", "numbers_of", "weight_of"]

_LARGEST = 2**31 - 1
_WRITTEN_AS_NONE = {"null", "none", "nan"}


def is_missing(value: object) -> bool:
    """Whether nothing is there: null, NaN or empty text."""
    return value is None or value == "" or value != value  # NaN is what differs from itself


def looks_like_list(value: object) -> bool:
    """Whether it is a list, or text such as "[0, 2]"."""
    if isinstance(value, str):
        value = value.strip()
        return value.startswith("[") and value.endswith("]")
    return isinstance(value, list)


def file_of(value: object, column: str) -> str:
    """The path as it stands in the manifest.

    Raises:
        DataError: there is none, or no file can have it.
    """
    if is_missing(value):
        raise DataError(f"{column!r} is empty; each row needs the path of an image.")
    if not isinstance(value, str) or "\0" in value:
        raise DataError(f"{column!r} should be the path of an image, got {_short(value)}.")
    return value


def weight_of(value: object, column: str) -> float:
    """The weight; nothing means 1.

    Raises:
        DataError: it is no finite number of at least 0.
    """
    if value is None or value == "":
        return 1.0
    try:
        weight = float(value)  # type: ignore[arg-type]  # whatever cannot be a number raises
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 <= weight <= 3e38:  # the largest float32
        raise DataError(f"{column!r} should be a finite number of at least 0, got {_short(value)}.")
    return weight


def crop_of(value: object, column: str) -> tuple[int, int, int, int]:
    """`(top, left, height, width)` of `[x, y, width, height]`, rounded to whole pixels; nothing gives four zeros.

    x and y may lie outside the image; whether the crop does is known when the image is.

    Raises:
        DataError: it is not four finite numbers, or has no width or height.
    """
    if is_missing(value) or (isinstance(value, str) and value.strip().lower() in _WRITTEN_AS_NONE):
        return 0, 0, 0, 0
    numbers = numbers_of(value, column)
    if len(numbers) != 4 or not sum(map(abs, numbers)) < _LARGEST:  # NaN is not below either
        raise DataError(f"{column!r} should be [x, y, width, height] in pixels, got {_short(value)}.")
    x, y, width, height = map(round, numbers)
    if width < 1 or height < 1:
        raise DataError(
            f"{column!r} should be [x, y, width, height] in pixels, of at least 1 by 1; got {_short(value)}."
        )
    return y, x, height, width


def numbers_of(value: object, column: str) -> list[float]:
    """The numbers of a list, or of text such as "[0.9, 0.1]" or "0.9|0.1".

    Raises:
        DataError: something in it is no number.
    """
    items: Any = value
    if isinstance(value, str):
        items = value.strip(" []()").replace(",", " ").replace("|", " ").split()
    try:
        return list(map(float, items))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{column!r} should be a list of numbers, got {_short(value)}.") from None


def items_of(value: object, column: str) -> list[Any]:
    """The labels of a list; of text such as '["red", "dress"]' or "red|dress"; or of one number.

    Raises:
        DataError: there is no value, or one that is no list.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        if looks_like_list(value):
            return _parsed_list(value.strip(), column)
        return [part for part in map(str.strip, value.split("|")) if part]
    if value is None or value != value:
        raise DataError(
            f"{column!r} is missing; write an empty list for an image without labels, or leave rows that nobody has "
            "labelled out: Manifest(..., skip_unlabelled=True)."
        )
    if isinstance(value, dict):
        raise DataError(f"{column!r} should be a list of labels or text such as 'red|dress', got {_short(value)}.")
    return [value]


def _parsed_list(text: str, column: str) -> list[Any]:
    try:
        return list(json.loads(text))
    except (ValueError, RecursionError):
        pass
    try:
        return list(ast.literal_eval(text))  # as Python prints a list, and pandas writes one into CSV
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise DataError(f"{column!r} should be a list of labels or text such as 'red|dress', got {text!r}.") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
