"""What was found out about a large file, kept on disk until the file changes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging

from model_trainer.storage import files

__all__ = ["load_kept", "save_kept"]

_STAMP = "stamp"


def load_kept(path: str, what: str, stamp: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """The arrays that `save_kept` wrote about the file `path`; None where there are none, or of another `stamp`.

    Args:
        what: tells different kinds of knowledge about the same file apart.
        stamp: size in bytes and time of change in nanoseconds of the file.
    """
    kept = _place(path, what)
    try:
        with files.open_file(kept) as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.debug("The index %s of %s is damaged and is made again: %s", kept, path, error)
        return None
    return found if found.pop(_STAMP, np.empty(0)).tolist() == list(stamp) else None


def save_kept(path: str, what: str, stamp: tuple[int, int], arrays: Mapping[str, np.ndarray]) -> None:
    """Keeps `arrays` for `load_kept`, in place of older ones; where that cannot be done, only a debug line tells."""
    kept = _place(path, what)
    try:
        files.make_folder(kept.parent)
        with files.atomic_write(kept) as partial:
            np.savez(partial, allow_pickle=False, **{_STAMP: np.asarray(stamp, np.int64), **arrays})
    except OSError as error:
        logging.debug("The index of %s could not be kept: %s", path, error)


def _place(path: str, what: str) -> Path:
    cache = os.environ.get("MODEL_TRAINER_CACHE") or os.path.expanduser("~/.cache/model_trainer")
    whole = path if "://" in path else os.path.abspath(path)
    name = hashlib.sha256(f"{whole}\0{what}".encode("utf-8", "surrogateescape")).hexdigest()[:40]
    return Path(cache) / "index" / f"{name}.npz"
