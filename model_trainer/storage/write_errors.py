"""The error for a file that could not be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from model_trainer.errors import StorageError

__all__ = ["is_full", "not_written", "size_text"]

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def is_full(error: BaseException) -> bool:
    """Whether `error` means that the disk is full, or the user's quota exceeded."""
    return _errno_of(error) in _FULL


def not_written(path: str | os.PathLike[str], error: BaseException, num_bytes: int | None = None) -> StorageError:
    """A StorageError for `path`; for a full disk its message gives the free space.

    Args:
        path: of the file.
        error: the reason: an OSError, or the error of a library that wraps one.
        num_bytes: size of the file, if known.
    """
    if isinstance(error, StorageError):  # it names the cause and its object already, and has the exit code
        return error
    number = _errno_of(error)
    reason = os.strerror(number) if number else str(error)
    text = f"{os.fspath(path)} could not be written: {reason}"
    if number == errno.ENOSPC:  # not for a quota, which may allow less than is free
        needed = "" if num_bytes is None else f"{size_text(num_bytes)} are needed, "
        free = "" if "://" in os.fspath(path) else f"{_free(Path(path))} are free"
        text += f"; {needed}{free}".rstrip(", ;")
    storage_error = StorageError(f"{text}.")
    storage_error.errno = number
    return storage_error


def _errno_of(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and "errno" in str(error):  # HDF5 has it inside its message
        match = re.search(r"errno = (\d+)", str(error))
        number = int(match[1]) if match else None
    return number


def _free(path: Path) -> str:
    for folder in path.parents:
        try:
            return size_text(shutil.disk_usage(folder).free)
        except OSError:
            continue
    return "few bytes"


def size_text(num_bytes: float) -> str:
    """Formats a size: "812 bytes", "1.5 MB" or "240 MB"."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while num_bytes >= 1000 and len(units) > 1:
        num_bytes /= 1000
        del units[0]
    return f"{num_bytes:.1f} {units[0]}" if num_bytes < 10 and units[0] != "bytes" else f"{num_bytes:.0f} {units[0]}"
