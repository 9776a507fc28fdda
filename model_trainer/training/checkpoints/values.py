"""Converts nested state, of plain values and arrays, to JSON and named arrays for a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_trainer.errors import ConfigError

__all__ = ["pack", "unpack"]

_ARRAY = "__array__"


def pack(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Converts `value` to JSON types, and adds its arrays to `arrays` under names that begin with `name`.

    Raises:
        ConfigError: an item is neither a JSON type nor an array that a checkpoint can hold.
    """
    if isinstance(value, float):  # np.float64 is one too
        return float(value)
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.names:
            kind = "Python objects" if value.dtype.hasobject else "records"
            raise ConfigError(f"{name} holds an array of {kind}, which a checkpoint cannot hold.")
        arrays[name] = np.array(value)
        return {_ARRAY: name}
    if isinstance(value, Mapping):
        return {str(key): pack(item, f"{name}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item, f"{name}/{index}", arrays) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{name} is {value!r}; state must consist of numbers, strings, lists, dicts and arrays.")


def unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Restores the value that `pack` converted; tuples become lists."""
    if isinstance(value, Mapping):
        if set(value) == {_ARRAY}:
            return np.array(arrays[value[_ARRAY]])
        return {key: unpack(item, arrays) for key, item in value.items()}
    return [unpack(item, arrays) for item in value] if isinstance(value, list) else value
