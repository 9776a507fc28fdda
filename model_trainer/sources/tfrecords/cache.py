"""A cache on disk for arrays computed from a large file, valid until the file changes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging

from model_trainer.storage import configuration, files
from model_trainer.storage.objects.own_files import folder_of_indexes

__all__ = ["load_cached", "save_cached"]

_STAMP = "stamp"


def load_cached(path: str, kind: str, stamp: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """The arrays that `save_cached` cached for the file `path`; None if there are none, or if `stamp` differs.

    Args:
        path: of the file.
        kind: distinguishes several caches of the same file.
        stamp: size in bytes and modification time in nanoseconds of the file.
    """
    cache_path = _cache_path(path, kind)
    try:
        with files.open_file(cache_path) as file, np.load(file, allow_pickle=False) as arrays:
            by_name = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.debug("The index %s of %s is damaged and is rebuilt: %s", cache_path, path, error)
        return None
    return by_name if by_name.pop(_STAMP, np.empty(0)).tolist() == list(stamp) else None


def save_cached(path: str, kind: str, stamp: tuple[int, int], arrays: Mapping[str, np.ndarray]) -> None:
    """Caches `arrays` for `load_cached`, replacing older ones; a failure is only logged at debug level."""
    cache_path = _cache_path(path, kind)
    try:
        reason = folder_of_indexes(configuration.current().cache_folder).why_not_usable()
        if reason:
            raise OSError(0, reason)
        with files.atomic_write(cache_path) as partial:
            np.savez(partial, allow_pickle=False, **{_STAMP: np.asarray(stamp, np.int64), **arrays})
    except OSError as error:
        logging.debug("The index of %s could not be cached: %s", path, error)


def _cache_path(path: str, kind: str) -> Path:
    full_path = path if "://" in path else os.path.abspath(path)
    name = hashlib.sha256(f"{full_path}\0{kind}".encode("utf-8", "surrogateescape")).hexdigest()[:40]
    return folder_of_indexes(configuration.current().cache_folder).path / f"{name}.npz"
