"""Converts whole Arrow columns to NumPy arrays, or to their distinct values.

Each function returns what its counterpart in `values` returns row by row, or raises `NeedsRowReader`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_trainer.sources.labels.tags import ManyLabels
from model_trainer.sources.manifest.paths import URL_LIKE, VALID_URL, WITH_DOTS, full_path
from model_trainer.sources.manifest.values import crop_of, is_missing, items_of, weight_of
from model_trainer.storage.objects.urls import SCHEMES

__all__ = [
    "Distinct",
    "NeedsRowReader",
    "Paths",
    "content_of",
    "crops_of",
    "distinct",
    "is_empty",
    "is_text",
    "lists_of",
    "paths_of",
    "weights_of",
]


class NeedsRowReader(Exception):
    """The fast reader met something that only the row-by-row reader can read or explain."""


class Distinct(NamedTuple):
    """A column as its distinct values.

    Attributes:
        values: the distinct values, in the order of their first row; a value may occur more than once.
        codes: int `(num_rows,)`, the index in `values` of each row's value.
    """

    values: list[Any]
    codes: np.ndarray


class Paths(NamedTuple):
    """Concatenated paths.

    Attributes:
        data: their bytes, encoded as by `os.fsencode`.
        ends: int64 `(num_rows,)`, the offset in `data` at which each path ends.
        first_windows_path: the first path with "\\" for "/"; empty if there is none.
    """

    data: bytes
    ends: np.ndarray
    first_windows_path: str


def is_text(column: pa.Array) -> bool:
    """Whether the column holds strings."""
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def is_empty(column: pa.Array, *, text_too: bool) -> np.ndarray:
    """bool `(num_rows,)`: whether the value is null or NaN, or with `text_too` an empty string, as in `is_missing`."""
    empty = np.asarray(pc.is_null(column, nan_is_null=True))
    if text_too and is_text(column):
        empty = empty | np.asarray(pc.equal(column, "").fill_null(True))
    return empty


def distinct(column: pa.Array, *, zeros_alike: bool = False) -> Distinct:
    """The distinct values of a column.

    Args:
        zeros_alike: whether 0.0 and -0.0 count as one value.
    """
    kind = column.type
    is_plain = is_text(column) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if is_plain or (zeros_alike and pa.types.is_floating(kind)):
        encoded = column.dictionary_encode(null_encoding="encode")
        return Distinct(encoded.dictionary.to_pylist(), np.asarray(encoded.indices))
    return Distinct(column.to_pylist(), np.arange(len(column)))


def weights_of(column: pa.Array, name: str) -> np.ndarray:
    """float32 `(num_rows,)`: the weights, as `weight_of` returns them."""
    if is_text(column):
        column = pc.if_else(pc.equal(column, ""), None, column)
    try:
        weights = np.asarray(column.cast(pa.float64()).fill_null(1.0))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # such as "1_000", which Python parses as a number
        values, codes = distinct(column)
        return np.array([weight_of(value, name) for value in values], np.float32)[codes]
    if not np.all((weights >= 0) & (weights <= 3e38)):
        raise NeedsRowReader(f"a value of {name!r} is no weight")
    return weights.astype(np.float32)


def crops_of(column: pa.Array, name: str) -> np.ndarray:
    """int32 `(num_rows, 4)`: the crops, as `crop_of` returns them."""
    if pa.types.is_list(column.type) and _are_numbers(column.type.value_type):
        return _crops_of_lists(column, name)
    if not is_text(column):
        return np.array([crop_of(value, name) for value in column.to_pylist()], np.int32).reshape(-1, 4)
    encoded = column.dictionary_encode(null_encoding="encode")
    strings = encoded.dictionary
    try:
        # "[1, 2, 3, 4]", as all programs write it; other spellings fail here and are parsed one by one.
        lists = pc.split_pattern(pc.ascii_trim(strings, " []()"), ",")
        numbers = pc.ascii_trim_whitespace(lists.flatten()).cast(pa.float64())
        lists = pa.ListArray.from_arrays(lists.offsets, numbers)
        crops = _crops_of_lists(lists, name)
    except (pa.ArrowInvalid, NeedsRowReader):
        crops = np.array([crop_of(value, name) for value in strings.to_pylist()], np.int32).reshape(-1, 4)
    return crops[np.asarray(encoded.indices)]


def _are_numbers(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _crops_of_lists(column: pa.ListArray, name: str) -> np.ndarray:
    widths = np.asarray(pc.list_value_length(column).fill_null(0))
    flat = column.flatten()
    present = np.asarray(column.is_valid())
    if flat.null_count or not np.all(widths[present] == 4):
        raise NeedsRowReader(f"a value of {name!r} is no crop")
    numbers = np.asarray(flat.cast(pa.float64())).reshape(-1, 4)
    # The exact limit is twice as high; near it rounding could decide. NaN compares as False and is declined, too.
    if not np.all(np.abs(numbers).sum(axis=1) < 2**30):
        raise NeedsRowReader(f"a value of {name!r} is no crop")
    x, y, width, height = np.rint(numbers).astype(np.int32).T
    if np.any(width < 1) or np.any(height < 1):
        raise NeedsRowReader(f"a value of {name!r} is no crop")
    crops = np.zeros((len(column), 4), np.int32)
    crops[present] = np.stack([y, x, height, width], axis=1)
    return crops


def lists_of(column: pa.Array, name: str, *, missing_is_empty: bool) -> ManyLabels:
    """The labels of each row, as `items_of` returns them.

    Args:
        missing_is_empty: whether rows without a value have no labels.
    """
    if pa.types.is_list(column.type):
        if column.null_count and not missing_is_empty:
            raise NeedsRowReader(f"a value of {name!r} is missing")
        widths = np.asarray(pc.list_value_length(column).fill_null(0))
        return *distinct(column.flatten(), zeros_alike=True), widths
    values, codes = distinct(column, zeros_alike=True)
    rows = [[] if missing_is_empty and is_missing(value) else items_of(value, name) for value in values]
    widths = np.array([len(row) for row in rows], np.int64)
    starts = np.cumsum(widths) - widths
    row_widths = widths[codes]
    # The position of each item within its row.
    position_in_row = np.arange(row_widths.sum()) - np.repeat(np.cumsum(row_widths) - row_widths, row_widths)
    items = [item for row in rows for item in row]
    return items, np.repeat(starts[codes], row_widths) + position_in_row, row_widths


def paths_of(column: pa.Array, name: str, root: str) -> Paths:
    """Joins the paths to `root`, as `full_path` does."""
    if not is_text(column) or column.null_count:
        raise NeedsRowReader(f"a value of {name!r} is no path")
    if os.name == "nt" or sys.getfilesystemencoding() != "utf-8":
        raise NeedsRowReader("the file system's encoding of paths is not UTF-8")
    data, ends = content_of(column)
    if b"\0" in data or np.any(np.diff(ends, prepend=0) == 0):
        raise NeedsRowReader(f"a value of {name!r} is no path")
    first_windows_path = ""
    if b"\\" in data:
        is_windows = pc.and_(pc.match_substring(column, "\\"), pc.invert(pc.match_substring(column, "/")))
        windows_paths = column.filter(is_windows)
        if len(windows_paths):
            first_windows_path = windows_paths[0].as_py()
            column = pc.if_else(is_windows, pc.replace_substring(column, "\\", "/"), column)
            data, _ = content_of(column)
    has_dots = pc.match_substring_regex(column, WITH_DOTS)
    unusual = pc.match_substring_regex(column, URL_LIKE)
    if pc.any(unusual).as_py():
        is_right = pc.and_not(pc.match_substring_regex(column, VALID_URL), has_dots)
        unusual = pc.and_not(unusual, is_right)
    if root.partition("://")[0] in SCHEMES:
        unusual = pc.or_(unusual, has_dots)
    joined_singly = [full_path(path, root) for path in column.filter(unusual).to_pylist()]
    if root:
        joined = pc.binary_join_element_wise(pa.scalar(root, column.type), column, pa.scalar("", column.type))
        is_absolute = pc.starts_with(column, "/")
        if b"://" in data:
            is_absolute = pc.or_(is_absolute, pc.match_substring(column, "://"))
        column = pc.if_else(is_absolute, column, joined)
    if joined_singly:
        column = pc.replace_with_mask(column, unusual, pa.array(joined_singly, column.type))
    return Paths(*content_of(column), first_windows_path)


def content_of(column: pa.Array) -> tuple[bytes, np.ndarray]:
    """The concatenated bytes of a column of strings, and the offset at which each string ends."""
    _, offsets, data = column.buffers()
    wide = pa.types.is_large_string(column.type)
    starts = np.frombuffer(offsets, np.int64 if wide else np.int32)[column.offset : column.offset + len(column) + 1]
    content = b"" if data is None else data[int(starts[0]) : int(starts[-1])].to_pybytes()
    return content, starts[1:].astype(np.int64) - int(starts[0])
