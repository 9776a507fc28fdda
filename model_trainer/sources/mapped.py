"""Parts of large files: local ones through a memory map that stays open, others by TensorFlow's file systems."""

from __future__ import annotations

import functools
import mmap
import os

from model_trainer.storage.read import read_remote

__all__ = ["map_file", "read_range"]


def read_range(path: str, start: int, size: int) -> bytes:
    """`size` bytes of the file from `start` on.

    Raises:
        OSError: the file is gone, cannot be read, or ends before.
    """
    if "://" in path:
        return read_remote(path, start, size)
    data = map_file(path)[start : start + size]
    if len(data) != size:
        raise OSError(f"ends before byte {start + size}")
    return data


def map_file(path: str) -> mmap.mmap | bytes:
    """The whole file as bytes that are read when they are looked at. A file that was replaced is mapped anew.

    Raises:
        OSError: the file is gone or cannot be read.
    """
    found = os.stat(path)
    return _map(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # each keeps a file open, of which a process may have 1,024
def _map(path: str, *version: int) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""
