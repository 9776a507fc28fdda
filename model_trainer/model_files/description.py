"""The description in a model file: strict JSON of a bounded size, read as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from model_trainer.errors import ModelFileError, StorageError
from model_trainer.storage import files

__all__ = ["parse_description", "read_description_file"]

MAX_BYTES = 8 << 20  # names of 200,000 classes
MAX_DEPTH = 32
MAX_INTEGER = 2**53  # beyond it, JSON parsers disagree


def read_description_file(path: PurePath) -> dict[str, Any]:
    """Reads a `model_spec.json`.

    Args:
        path: the file, which may be untrusted.

    Returns:
        The JSON object as plain values, not interpreted.

    Raises:
        ModelFileError: it cannot be read, or is not a valid description.
    """
    try:
        with files.open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
        return parse_description(content.decode(), str(path))
    except StorageError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is damaged or not a JSON file: {error}.") from error


def parse_description(text: str, where: str) -> dict[str, Any]:
    """Parses a description.

    Args:
        text: a JSON object, which may be untrusted; at most `MAX_BYTES` characters.
        where: where it comes from; begins the messages.

    Returns:
        The object as plain values: dictionaries, lists, strings, finite numbers, booleans and None.

    Raises:
        ModelFileError: it is not a JSON object, is too long or nested too deeply, contains NaN, an integer beyond
            2**53, or a `type` that is not a string.
    """
    if len(text) > MAX_BYTES:
        raise ModelFileError(f"{where} is longer than {MAX_BYTES:,} characters, the maximum for a description.")
    try:
        data = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float, parse_int=_bounded_int)
    except RecursionError:
        raise ModelFileError(f"{where} is nested too deeply.") from None
    except ValueError as error:
        raise ModelFileError(f"{where} is damaged or not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{where} should hold a JSON object, got a {type(data).__name__}.")
    for depth, key, value in _walk(data):
        if depth > MAX_DEPTH:
            raise ModelFileError(f"{where} is nested deeper than {MAX_DEPTH} levels.")
        if key == "type" and not isinstance(value, str):
            raise ModelFileError(f"{where} has a `type` that should be a string, got a {type(value).__name__}.")
    return data


def _walk(data: Any) -> Iterator[tuple[int, str, Any]]:
    """Yields depth, key and value of everything in `data`; the key is "" in a list."""
    todo: list[tuple[int, Any]] = [(1, data)]
    while todo:
        depth, value = todo.pop()
        pairs = value.items() if isinstance(value, dict) else (("", item) for item in value)
        for key, item in pairs:
            yield depth, key, item
            if isinstance(item, (dict, list)) and depth <= MAX_DEPTH:
                todo.append((depth + 1, item))


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"{text[:20]} is beyond 2**53")
    return int(text)
