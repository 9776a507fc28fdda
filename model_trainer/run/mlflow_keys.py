"""The names under which MLflow accepts metrics and parameters. MLflow itself is not needed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

__all__ = ["mlflow_keys"]

MAX_CHARACTERS = 250  # MLflow's MAX_ENTITY_KEY_LENGTH


def mlflow_keys(names: Iterable[str]) -> dict[str, str]:
    """Returns the key in MLflow for each name; names whose keys would be equal are numbered.

    Example:
        >>> mlflow_keys(["val_loss", "weights.cat?", "weights.cat!"])
        {'val_loss': 'val_loss', 'weights.cat?': 'weights.cat_', 'weights.cat!': 'weights.cat__2'}
    """
    keys = {name: _valid_key(name) for name in names}
    # A name that is accepted as it is keeps its key, whatever comes before it.
    used = {name for name, key in keys.items() if key == name}
    for name in [name for name in keys if name not in used]:
        key, number = keys[name], 1
        while key in used:
            number += 1
            key = f"{_valid_key(name)[: MAX_CHARACTERS - len(f'_{number}')]}_{number}"
        keys[name] = key
        used.add(key)
    return keys


def _valid_key(name: str) -> str:
    key = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:MAX_CHARACTERS]
    # MLflow may store a key as a file: it refuses one that is not a normal relative path.
    if posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":
        key = f"_{key}".replace("/", "_")[:MAX_CHARACTERS]
    return key
