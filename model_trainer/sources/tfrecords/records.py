"""Reads the records of a TFRecord file with their byte offsets, and verifies both checksums of each.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of the data (4).

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import NamedTuple

from model_trainer.errors import DataError, StorageError
from model_trainer.storage import cached, files

__all__ = ["Version", "read_records", "version_of"]

_BEFORE, _AFTER = 12, 4  # bytes around the data of a record
_BLOCK_BYTES = 16 << 20  # of an object, which is held in memory; up to 8 files are read at once


def read_records(path: str) -> Iterator[tuple[int, bytes]]:
    """`(start, data)` of each record; `start` is the byte offset of the data in the file.

    Of an object store, blocks of whole records are read one after the other, so that the file need not fit on the disk.

    Args:
        path: local, in an object store, or on any file system that TensorFlow supports.

    Raises:
        DataError: the file is missing, compressed or damaged; the message gives the number of records read, and the
            byte offset.
        StorageError: its store refuses every request, or does not answer.
    """
    version = version_of(path)
    if not cached.is_in_store(path):
        yield from _read_file(path, _Position(path, 0, 0, version.size), version.size)
        return
    position = _Position(path, 0, 0, version.size)
    for block in _blocks(path, version):
        end = position.start + len(block)
        with cached.temporary_file(block) as local:
            for start, record in _read_file(local, position, end):
                yield start, record
                position = position._replace(number=position.number + 1)
        position = position._replace(start=end)


class _Position(NamedTuple):
    """Where a block of a file starts, for messages."""

    path: str
    number: int  # of records before it
    start: int  # in bytes
    size: int  # of the whole file


def _read_file(local: str, position: _Position, end: int) -> Iterator[tuple[int, bytes]]:
    """The records of a file, which are those of another one from `position` to byte `end`."""
    import tensorflow as tf

    # tf.data would initialize the devices, which the run has not chosen yet. Unwrapped, this function only lacks the
    # deprecation notice that recommends tf.data.
    read = inspect.unwrap(tf.compat.v1.io.tf_record_iterator)
    path, number, start, size = position
    try:
        for record in read(local):
            yield start + _BEFORE, record
            start += _BEFORE + len(record) + _AFTER
            number += 1
    except tf.errors.DataLossError as error:
        raise DataError(_damaged(path, number, start, size)) from error
    except tf.errors.OpError as error:
        raise DataError(f"{path} could not be read: {error.message}.") from error
    if start != end:  # TensorFlow takes a few trailing bytes for the end of the file
        raise DataError(_damaged(path, number, start, size))


def _blocks(path: str, version: Version) -> Iterator[bytes]:
    """Whole records of an object, about `_BLOCK_BYTES` at once; the last block may be a damaged record."""
    start, num_bytes = 0, _BLOCK_BYTES
    while start < version.size:
        num_bytes = min(num_bytes, version.size - start)
        data = cached.read_range_version(path, start, num_bytes, version.tag, keep=False)
        end, needed = _end_of_records(data)
        if end == 0 and len(data) < needed <= version.size - start:
            num_bytes = needed
            continue
        block = data[:end] if end else data
        yield block
        start, num_bytes = start + len(block), _BLOCK_BYTES


def _end_of_records(data: bytes) -> tuple[int, int]:
    """Where the last whole record ends, and where the one after it does, if its length is right."""
    end = 0
    while True:
        if end + _BEFORE > len(data):
            return end, end + _BEFORE
        next_end = end + _BEFORE + int.from_bytes(data[end : end + 8], "little") + _AFTER
        if next_end > len(data):
            return end, next_end
        end = next_end


class Version(NamedTuple):
    """Which version of a file it is; `tag` is the ETag in an object store, otherwise empty."""

    tag: str
    size: int
    changed_ns: int


def version_of(path: str) -> Version:
    """The version of a file.

    Raises:
        DataError: the file is missing or cannot be accessed.
        StorageError: its store refuses every request, or does not answer.
    """
    try:
        return Version(*cached.version_of(path))
    except StorageError:
        raise
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataError(f"{path} could not be opened: {error.strerror or error}.") from error


def _damaged(path: str, number: int, start: int, size: int) -> str:
    compression = _compression(path) if number == 0 else None
    if compression is not None:
        return (
            f"{path} is compressed with {compression}, so a record cannot be read without all records before it. "
            "Write it again without compression: tf.io.TFRecordWriter(path) without options."
        )
    if number == 0:
        return (
            f"{path} is not a TFRecord file, or its first record (byte 0 of {size}) is damaged. Copy or write it again."
        )
    return (
        f"{path} is damaged: {number} records were read, then the one at byte {start} of {size} is cut off or its "
        "checksum is wrong. Copy or write it again; if it is still being written, wait for the end."
    )


def _compression(path: str) -> str | None:
    with files.open_file(path) as file:
        head = file.read(3)
    if head == b"\x1f\x8b\x08":
        return "GZIP"
    # A zlib stream starts with "deflate, window of 32 KiB", and its first two bytes are a multiple of 31.
    if head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0:
        return "ZLIB"
    return None
