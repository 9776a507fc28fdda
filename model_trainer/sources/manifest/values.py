"""Parses the values of a row, which are strings (CSV) or JSON values."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from model_trainer.errors import DataError

__all__ = ["crop_of", "file_of", "is_missing", "items_of", "looks_like_list", "numbers_of", "weight_of"]

_MAX_SUM = 2**31 - 1
_WRITTEN_AS_NONE = {"null", "none", "nan"}


def is_missing(value: object) -> bool:
    """Whether the value is null, NaN or an empty string."""
    return value is None or value == "" or value != value  # only NaN differs from itself


def looks_like_list(value: object) -> bool:
    """Whether the value is a list, or a string such as "[0, 2]"."""
    if isinstance(value, str):
        value = value.strip()
        return value.startswith("[") and value.endswith("]")
    return isinstance(value, list)


def file_of(value: object, column: str) -> str:
    """The path as written in the manifest.

    Raises:
        DataError: the value is missing, or cannot be a path.
    """
    if is_missing(value):
        raise DataError(f"{column!r} is empty; each row needs the path of an image.")
    if not isinstance(value, str) or "\0" in value:
        raise DataError(f"{column!r} should be the path of an image, got {_short(value)}.")
    return value


def weight_of(value: object, column: str) -> float:
    """The weight; null or an empty string means 1.

    Raises:
        DataError: the value is not a finite number of at least 0.
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
    """`(top, left, height, width)` of `[x, y, width, height]`, rounded to whole pixels; four zeros for a missing value.

    Whether the crop lies within the image is checked when the image is read.

    Raises:
        DataError: the value is not four finite numbers, or its width or height is below 1.
    """
    if is_missing(value) or (isinstance(value, str) and value.strip().lower() in _WRITTEN_AS_NONE):
        return 0, 0, 0, 0
    numbers = numbers_of(value, column)
    if len(numbers) != 4 or not sum(map(abs, numbers)) < _MAX_SUM:  # also False for NaN
        raise DataError(f"{column!r} should be [x, y, width, height] in pixels, got {_short(value)}.")
    x, y, width, height = map(round, numbers)
    if width < 1 or height < 1:
        raise DataError(
            f"{column!r} should be [x, y, width, height] in pixels, of at least 1 by 1; got {_short(value)}."
        )
    return y, x, height, width


def numbers_of(value: object, column: str) -> list[float]:
    """The numbers of a list, or of a string such as "[0.9, 0.1]" or "0.9|0.1".

    Raises:
        DataError: an item is not a number.
    """
    items: Any = value
    if isinstance(value, str):
        items = value.strip(" []()").replace(",", " ").replace("|", " ").split()
    try:
        return list(map(float, items))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{column!r} should be a list of numbers, got {_short(value)}.") from None


def items_of(value: object, column: str) -> list[Any]:
    """The labels of a list, of a string such as '["red", "dress"]' or "red|dress", or a single number.

    Raises:
        DataError: the value is missing, or is not a list.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        if looks_like_list(value):
            return _parsed_list(value.strip(), column)
        return [label for label in map(str.strip, value.split("|")) if label]
    if value is None or value != value:
        raise DataError(
            f"{column!r} is missing; write an empty list for an image without labels, or leave out unlabeled "
            "rows: Manifest(..., skip_unlabeled=True)."
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
