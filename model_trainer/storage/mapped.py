"""Memory maps of large local files, kept open for fast reads of byte ranges."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from collections.abc import Iterator

__all__ = ["Mapped", "map_file", "mapped"]

Mapped = mmap.mmap | bytes


def map_file(path: str) -> Mapped:
    """Maps a file into memory, cached; a replaced file is mapped again.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    status = os.stat(path)
    return _map(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # each keeps a file open; the usual limit is 1,024 per process
def _map(path: str, *version: int) -> Mapped:
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""


@contextlib.contextmanager
def mapped(path: str | os.PathLike[str]) -> Iterator[mmap.mmap]:
    """Maps a non-empty local file into memory inside the `with` block.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
