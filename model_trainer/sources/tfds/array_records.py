"""Images in ArrayRecord files, which give random access to records."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from model_trainer.errors import DataError, MissingExtra, StoppedError
from model_trainer.sources.images import Images

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordReader

__all__ = ["ArrayRecordImages", "read_array_records"]

_RECORDS_PER_READ = 64  # while indexing


@final
@dataclass(frozen=True, eq=False)
class ArrayRecordImages(Images):
    """The images of `tf.train.Example` records.

    Attributes:
        files: paths of the files.
        file, record: int32 `(count,)`, the index of each image's file, and of its record in that file.
        sizes: int64 `(count,)`, of the encoded images in bytes.
        feature: the name of the image's feature in the records.
    """

    files: Sequence[str]
    file: np.ndarray
    record: np.ndarray
    sizes: np.ndarray
    feature: str

    def __len__(self) -> int:
        return len(self.record)

    def name(self, row: int) -> str:
        return f"{self.files[self.file[row]]}#{self.record[row]}"

    def read(self, row: int) -> bytes:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        path = self.files[self.file[row]]
        try:
            data = _reader(path, os.getpid()).read([int(self.record[row])])[0]
            values = tf.train.Example.FromString(data).features.feature[self.feature].bytes_list.value
        except (RuntimeError, DecodeError) as error:
            raise OSError(0, f"it could not be read: {error}", self.name(row)) from error
        return values[0] if values else b""

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self.sizes[rows]


def read_array_records(path: str) -> Iterator[tuple[int, bytes]]:
    """`(0, data)` of each record; records have no byte offset of their own, because they are compressed together.

    Raises:
        DataError: the file is missing or damaged; the message gives the number of records read.
    """
    number = 0
    try:
        reader = _reader(path, os.getpid())
        total = reader.num_records()
        for first in range(0, total, _RECORDS_PER_READ):
            for record in reader.read(first, min(first + _RECORDS_PER_READ, total)):
                yield 0, record
                number += 1
    except StoppedError:  # a signal
        raise
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is damaged: {number} records were read, then: {error}. Prepare it again.") from error


# Keyed by process, because open readers have threads, which a forked process does not inherit.
@functools.lru_cache(maxsize=256)  # open files; the usual limit of a process is 1024
def _reader(path: str, pid: int) -> ArrayRecordReader:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ModuleNotFoundError:
        raise MissingExtra("ArrayRecord files", "array_record", "tfds") from None

    # No readahead, because access is random.
    reader = ArrayRecordReader(path, options="readahead_buffer_size:0", file_reader_buffer_size=32768)
    if not reader.ok():
        raise OSError(0, "it is missing or not an ArrayRecord file", path)
    return reader
