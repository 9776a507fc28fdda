"""Reads files of any storage, but not devices or pipes, which might never end."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from model_trainer.storage import files

__all__ = [
    "MAX_FILE_BYTES",
    "NOT_REGULAR",
    "TENSORFLOW_SCHEMES",
    "read_end",
    "read_image_file",
    "read_limited",
    "size_of",
    "state_of_file",
    "why_not_read",
]

TENSORFLOW_SCHEMES = ("file", "gs", "ram")  # tf.io.gfile.get_registered_schemes()

# The size of the largest image that Pillow accepts, uncompressed.
MAX_FILE_BYTES = 2**29
NOT_REGULAR = "it is not a regular file"


def read_image_file(path: str) -> bytes:
    """Reads the bytes of a file.

    Raises:
        OSError: it is missing or cannot be read; on the local disk also if it is not a regular file, or larger than
            `MAX_FILE_BYTES`.
    """
    if "://" in path:
        return files.read(path)
    return _read_local(path, MAX_FILE_BYTES)


def read_limited(path: files.StrPath, max_bytes: int) -> bytes:
    """Reads the bytes of a file of any storage.

    Raises:
        OSError: it is missing, not a regular file, larger than `max_bytes`, or cannot be read.
    """
    if "://" not in os.fspath(path):
        return _read_local(os.fspath(path), max_bytes)
    entry = files.info(path)
    if entry is not None:  # otherwise `files.read` raises FileNotFoundError
        if entry.is_folder or not entry.is_regular:
            raise OSError(0, NOT_REGULAR)
        _check_size(entry.size, max_bytes)
    return files.read(path)


def read_end(path: files.StrPath, num_bytes: int) -> bytes:
    """Reads the last `num_bytes` of a file of any storage, or all of a smaller one.

    Raises:
        OSError: it is missing, not a regular file, or cannot be read.
    """
    if "://" not in os.fspath(path):
        with _open_regular(os.fspath(path)) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - num_bytes))
            return file.read(num_bytes)
    entry = files.info(path)
    if entry is None or entry.size <= num_bytes:
        return read_limited(path, num_bytes)
    return files.read_range(path, entry.size - num_bytes, num_bytes)


def _read_local(path: str, max_bytes: int) -> bytes:
    with _open_regular(path) as file:
        _check_size(os.fstat(file.fileno()).st_size, max_bytes)
        return file.read()


def _open_regular(path: str) -> BinaryIO:
    # Non-blocking, because opening a pipe would wait for its writer.
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, NOT_REGULAR)
    return file


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise OSError(0, f"it has more than the limit of {max_bytes:,} bytes")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_of(path: str) -> int:
    """The size of a file in bytes; -1 if it is missing, 0 if it is remote, because that would take a request."""
    if "://" in path:
        return 0
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def state_of_file(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """`(inode, size in bytes, modification time in ns)` of a local file: changes if it is rewritten or replaced.

    Raises:
        OSError: it is missing, or not on the local disk.
    """
    info = os.stat(path)
    return info.st_ino, info.st_size, info.st_mtime_ns


def why_not_read(error: OSError, *, if_missing: str) -> str:
    """The reason, for messages, why an image file raised `error`: "could not be opened (Permission denied)"."""
    if isinstance(error, FileNotFoundError):
        return if_missing
    return f"could not be opened ({error.strerror or error})"
