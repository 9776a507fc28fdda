"""Tables of numbers that are too large for memory: written row by row, then read from a memory map."""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from model_trainer.storage import files
from model_trainer.storage.paths import StrPath

__all__ = ["RowWriter", "drop_pages", "map_npy", "write_npy"]

MAX_BYTES_IN_MEMORY = 128 << 20
CHUNK_BYTES = 16 << 20


class RowWriter:
    """Collects the rows of a float32 table, in memory or, if the table is large, in an unnamed temporary file.

    Args:
        num_columns: columns of the table.
        num_rows: expected number of rows, which decides where they are collected.
        folder: a local folder for the temporary file; None uses the system's.

    Example:
        >>> writer = RowWriter(num_columns=2, num_rows=3)
        >>> for _ in range(3):
        ...     writer.append(np.ones((1, 2), np.float32))
        >>> writer.finish().shape
        (3, 2)
    """

    def __init__(self, num_columns: int, num_rows: int, folder: str | os.PathLike[str] | None = None) -> None:
        self._num_columns = num_columns
        self._num_rows = 0
        self._chunks: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        if num_columns * num_rows * 4 > MAX_BYTES_IN_MEMORY:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as the table

    def append(self, rows: np.ndarray) -> None:
        """Appends `(k, num_columns)` rows."""
        rows = np.ascontiguousarray(rows, np.float32)
        self._num_rows += len(rows)
        if self._file is None:
            self._chunks.append(rows)
        else:
            self._file.write(rows.data)

    def finish(self) -> np.ndarray:
        """Returns float32 `(num_rows, num_columns)`; rows in a temporary file as a read-only memory map."""
        if self._file is None:
            return np.concatenate([np.empty((0, self._num_columns), np.float32), *self._chunks])
        with self._file:  # the map keeps a descriptor of its own
            self._file.flush()
            if not self._num_rows:
                return np.empty((0, self._num_columns), np.float32)
            return np.memmap(self._file, np.float32, mode="r", shape=(self._num_rows, self._num_columns))


def drop_pages(table: np.ndarray) -> None:
    """Releases the pages of a memory-mapped table that this process has read.

    They may stay in the cache of the operating system. Arrays that are not memory-mapped are left as they are.
    """
    array: Any = table
    while isinstance(array, np.ndarray):
        base: Any = array.base
        if isinstance(array, np.memmap) and isinstance(base, mmap.mmap):
            # Mode "c" has private pages, which hold changes that this process made.
            if array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
                base.madvise(mmap.MADV_DONTNEED)
            return
        array = base


def write_npy(path: StrPath, table: np.ndarray) -> None:
    """Writes an array as `.npy` atomically, in chunks of rows.

    Raises:
        StorageError: it cannot be written.
    """
    files.write(path, _npy_chunks(table))


def _npy_chunks(table: np.ndarray) -> Iterator[bytes | memoryview]:
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(table.dtype), "fortran_order": False, "shape": table.shape}
    np.lib.format.write_array_header_1_0(header, description)
    yield header.getvalue()
    rows = max(1, CHUNK_BYTES // max(1, table[:1].nbytes))
    for start in range(0, len(table), rows):
        yield np.ascontiguousarray(table[start : start + rows]).data.cast("B")


def map_npy(path: StrPath) -> np.ndarray:
    """Reads a numeric `.npy` file; a local one as a read-only memory map.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is damaged, or holds Python objects.
    """
    if "://" in os.fspath(path):
        return np.asarray(np.load(io.BytesIO(files.read(path)), allow_pickle=False))
    return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
