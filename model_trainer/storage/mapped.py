"""Large local files through a memory map that stays open, so that parts of them are read at once."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from collections.abc import Iterator

__all__ = ["Mapped", "map_file", "mapped"]

Mapped = mmap.mmap | bytes


def map_file(path: str) -> Mapped:
    """The whole file as bytes that are read when they are looked at. A file that was replaced is mapped anew.

    Raises:
        OSError: the file is gone or cannot be read.
    """
    found = os.stat(path)
    return _map(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # each keeps a file open, of which a process may have 1,024
def _map(path: str, *version: int) -> Mapped:
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""


@contextlib.contextmanager
def mapped(path: str | os.PathLike[str]) -> Iterator[mmap.mmap]:
    """A local file that is not empty, mapped inside the block.

    Raises:
        OSError: it is gone or cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
