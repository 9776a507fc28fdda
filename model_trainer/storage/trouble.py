"""What to say where a file could not be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from model_trainer.errors import StorageError

__all__ = ["is_full", "not_written"]

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def is_full(error: BaseException) -> bool:
    """Whether `error` says that the disk, or the user's share of it, is full."""
    return _errno_of(error) in _FULL


def not_written(path: str | os.PathLike[str], error: BaseException, num_bytes: int | None = None) -> StorageError:
    """The error that `path` could not be written; of a full disk it says how much is free.

    Args:
        error: why: an OSError, or what a library made of one.
        num_bytes: how large the file would be, where that is known.
    """
    number = _errno_of(error)
    reason = os.strerror(number) if number else str(error)
    text = f"{os.fspath(path)} could not be written: {reason}"
    if number == errno.ENOSPC:  # under a quota more may be free than may be used
        needed = "" if num_bytes is None else f"{_size(num_bytes)} are needed, "
        free = "" if "://" in os.fspath(path) else f"{_free(Path(path))} are free"
        text += f"; {needed}{free}".rstrip(", ;")
    told = StorageError(f"{text}.")
    told.errno = number
    return told


def _errno_of(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and "errno" in str(error):  # HDF5 tells it inside a text
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else None
    return number


def _free(path: Path) -> str:
    for folder in path.parents:
        try:
            return _size(shutil.disk_usage(folder).free)
        except OSError:
            continue
    return "few bytes"


def _size(num_bytes: float) -> str:
    """Such as "812 bytes", "1.5 MB" or "240 MB"."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while num_bytes >= 1000 and len(units) > 1:
        num_bytes /= 1000
        del units[0]
    return f"{num_bytes:.1f} {units[0]}" if num_bytes < 10 and units[0] != "bytes" else f"{num_bytes:.0f} {units[0]}"
