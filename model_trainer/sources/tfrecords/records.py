"""Reads the records of a TFRecord file with their byte offsets, and verifies both checksums of each.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of the data (4).

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from model_trainer.errors import DataError, StorageError
from model_trainer.storage import cached, files

__all__ = ["Version", "read_object_records", "read_records", "version_of"]

T = TypeVar("T")

_BEFORE, _AFTER = 12, 4  # bytes before and after the data of a record
_BLOCK_BYTES = 16 << 20  # of an object, which is held in memory; up to 8 files are read at once


def read_records(path: str) -> Iterator[tuple[int, bytes]]:
    """`(start, data)` of each record; `start` is the byte offset of the data in the file.

    Args:
        path: local, or on any file system that TensorFlow supports.

    Raises:
        DataError: the file is missing, compressed or damaged; the message gives the number of records read, and the
            byte offset.
    """
    version = version_of(path)
    yield from _read_file(path, _Position(path, 0, 0, version.size), version.size)


def read_object_records(path: str, version: Version, read: Callable[[Iterator[tuple[int, bytes]]], T]) -> T:
    """Returns `read(records)` for the records of an object, which are as in `read_records`.

    `read` is called again, from the first record, if the data was damaged on the way. Blocks of whole records are read
    one after the other, so that the file need not fit on the disk.

    Raises:
        DataError: as in `read_records`.
        StorageError: its store refuses every request, or does not answer.
    """
    try:
        return cached.read_verified(
            path, version.etag, version.size, lambda blocks: read(_records_in(path, version.size, blocks)), _BLOCK_BYTES
        )
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error


def _records_in(path: str, size: int, blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    position = _Position(path, 0, 0, size)
    for block in _whole_records(size, blocks):
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
    """The records of the file `local`, which holds the bytes of another file from `position` to `end`."""
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
    if start != end:  # TensorFlow treats a few trailing bytes as the end of the file
        raise DataError(_damaged(path, number, start, size))


def _whole_records(size: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The content of a file of `size` bytes, divided between records; ends after the first damaged record."""
    pending, start, needed = bytearray(), 0, 0  # not yielded yet, its byte offset, and its size with the next record
    for block in blocks:
        pending += block
        if len(pending) < needed:
            continue
        end, needed = _end_of_records(pending)
        if start + len(pending) == size or not needed or start + needed > size:
            yield bytes(pending)
            return
        if end:
            yield bytes(pending[:end])
            del pending[:end]
            start, needed = start + end, needed - end


def _end_of_records(data: bytes | bytearray) -> tuple[int, int]:
    """Where the last whole record ends, and where the next one does: 0 if the checksum of its length is wrong."""
    end = 0
    while True:
        if end + _BEFORE > len(data):
            return end, end + _BEFORE
        length = data[end : end + 8]
        if _checksum(length) != int.from_bytes(data[end + 8 : end + _BEFORE], "little"):
            return end, 0
        next_end = end + _BEFORE + int.from_bytes(length, "little") + _AFTER
        if next_end > len(data):
            return end, next_end
        end = next_end


def _checksum(data: bytes | bytearray) -> int:
    """The checksum of a length: a CRC-32C, masked as the format defines."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(map(_crc_of, range(256)))


class Version(NamedTuple):
    """Identifies the version of a file.

    Attributes:
        etag: the ETag in an object store, otherwise empty.
        size: in bytes.
        changed_ns: modification time in nanoseconds.
    """

    etag: str
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
