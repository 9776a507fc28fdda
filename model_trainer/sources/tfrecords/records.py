"""Reads the records of a TFRecord file with their byte offsets, and verifies both checksums of each.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of the data (4).

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from model_trainer.errors import DataError, StorageError
from model_trainer.storage import files

__all__ = ["read_records", "size_and_time"]

_BEFORE, _AFTER = 12, 4  # bytes around the data of a record


def read_records(path: str) -> Iterator[tuple[int, bytes]]:
    """`(start, data)` of each record; `start` is the byte offset of the data in the file.

    Args:
        path: local, or on any file system that TensorFlow supports, such as gs://.

    Raises:
        DataError: the file is missing, compressed or damaged; the message gives the number of records read, and the
            byte offset.
    """
    import tensorflow as tf

    size, _ = size_and_time(path)
    # tf.data would initialize the devices, which the run has not chosen yet. Unwrapped, this function only lacks the
    # deprecation notice that recommends tf.data.
    read = inspect.unwrap(tf.compat.v1.io.tf_record_iterator)
    start, number = 0, 0
    try:
        for record in read(path):
            yield start + _BEFORE, record
            start += _BEFORE + len(record) + _AFTER
            number += 1
    except tf.errors.DataLossError as error:
        raise DataError(_damaged(path, number, start, size)) from error
    except tf.errors.OpError as error:
        raise DataError(f"{path} could not be read: {error.message}.") from error
    if start != size:  # TensorFlow takes a few trailing bytes for the end of the file
        raise DataError(_damaged(path, number, start, size))


def size_and_time(path: str) -> tuple[int, int]:
    """`(bytes, nanoseconds)`: the size and the modification time of a file.

    Raises:
        DataError: the file is missing or cannot be accessed.
    """
    try:
        info = files.info(path)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} could not be opened: {error.strerror or error}.") from error
    if info is None:
        raise DataError(f"There is no file {path}.")
    return info.size, info.changed_ns


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
