"""The header of each record, `<IfQQ`: flag, label, id, id2; then `flag` labels; then the image.

Flag 0 means one label, in the header itself. Headers are read from the memory map in blocks; no image is read.

Source: https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/mxnet/recordio/index.html
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.recordio.framing import MAX_RECORD_BYTES, Data, read_record
from model_trainer.sources.recordio.index import words_of

__all__ = ["HEADER", "Headers", "headers_in", "image_start", "joined_headers", "read_headers"]

HEADER = struct.Struct("<IfQQ")

_BLOCK = 1 << 14  # records processed together
_MAX_LABELS = 1 << 20  # processed together; both limit the memory


@dataclass(frozen=True, eq=False)
class Headers:
    """The headers of the records that hold an image.

    Attributes:
        rows: int64 `(num_images,)`, the indices of these records in the file.
        ids: uint64 `(num_images,)`, their ids.
        labels: their labels.
    """

    rows: np.ndarray
    ids: np.ndarray
    labels: NumberRows


def image_start(flag: int) -> int:
    """The byte offset of the image in a record."""
    return HEADER.size + 4 * flag


def read_headers(path: str, data: Data, offsets: np.ndarray) -> Headers:
    """Reads the headers of all records with an image.

    Records with packed labels and no image are skipped with a warning: face data sets contain some that index the
    images of each person.

    Args:
        path: of the file, for messages.
        data: the contents of the file.
        offsets: int64, the byte offsets of its records.

    Raises:
        DataError: a record is too short for its header and its labels, or no record holds an image.
    """
    return joined_headers(path, headers_in(path, data, offsets), len(offsets))


def headers_in(path: str, data: Data, offsets: np.ndarray, first_row: int = 0, start: int = 0) -> list[Headers]:
    """The headers of the records in a block of a file.

    Args:
        path: of the file, for messages.
        data: the contents of the block.
        offsets: int64, the byte offsets of its records in the block.
        first_row: number of records before the block.
        start: byte offset of the block in the file.

    Raises:
        DataError: a record is too short for its header and its labels.
    """
    words = words_of(data)
    chunks = []
    for first in range(0, len(offsets), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(offsets)))
        chunk = _read_block(words, offsets, rows) or _read_block_by_record(path, data, offsets, rows, first_row, start)
        chunks.append(replace(chunk, rows=chunk.rows + first_row))
    return chunks


def joined_headers(path: str, chunks: list[Headers], num_records: int) -> Headers:
    """The headers of a whole file; raises DataError if none of its records holds an image."""
    rows = np.concatenate([chunk.rows for chunk in chunks])
    if not len(rows):
        raise DataError(f"{path} has {num_records} records, and none holds an image.")
    if len(rows) < num_records:
        logging.warning("%s: %d records carry labels but no image and were skipped.", path, num_records - len(rows))
    return Headers(
        rows=rows,
        ids=np.concatenate([chunk.ids for chunk in chunks]),
        labels=NumberRows.joined([chunk.labels for chunk in chunks]),
    )


def _read_block(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> Headers | None:
    """The headers of the records `rows`; None if a record's header and labels are not contiguous."""
    at = offsets[rows] // 4
    lengths = (words[at + 1] & MAX_RECORD_BYTES).astype(np.int64)
    if np.any(lengths < HEADER.size):
        return None
    flags = words[at + 2].astype(np.int64)
    starts = image_start(flags)
    if np.any(lengths < starts):
        return None
    is_split = words[at + 1] > MAX_RECORD_BYTES  # the image continues in other parts
    with_image = (flags == 0) | (lengths > starts) | is_split
    rows, at, flags = rows[with_image], at[with_image], flags[with_image]
    ids = words[at + 4].astype(np.uint64) | words[at + 5].astype(np.uint64) << np.uint64(32)
    floats = words.view("<f4")
    widths = np.maximum(flags, 1)
    first_label = at + np.where(flags == 0, 3, 8)
    chunks = []
    for group in _slices_of_few_labels(widths):
        group_starts = np.cumsum(widths[group]) - widths[group]
        positions = np.repeat(first_label[group] - group_starts, widths[group]) + np.arange(widths[group].sum())
        chunks.append(NumberRows.of_flat(widths[group], floats[positions]))
    return Headers(rows, ids, NumberRows.joined(chunks))


def _slices_of_few_labels(widths: np.ndarray) -> Iterator[slice]:
    """Slices of records with at most `_MAX_LABELS` labels in total, or one record."""
    ends = np.cumsum(widths)
    edges = [0, *(np.flatnonzero(np.diff(ends // _MAX_LABELS)) + 1).tolist(), len(widths)]
    return (slice(first, last) for first, last in itertools.pairwise(edges))


def _read_block_by_record(
    path: str, data: Data, offsets: np.ndarray, rows: np.ndarray, first_row: int, start: int
) -> Headers:
    """The same as `_read_block`, for records that are split within header or labels, or too short for them."""
    with_image, ids, labels = [], [], []
    for row, offset in zip(rows.tolist(), offsets[rows].tolist(), strict=True):
        record = read_record(data, offset)
        if len(record) < HEADER.size:
            raise DataError(
                f"{path}#{first_row + row} (byte {start + offset}) has {len(record)} bytes; an image record has a "
                f"header of {HEADER.size}. Was it written without mx.recordio.pack?"
            )
        flag, label, number, _ = HEADER.unpack_from(record)
        if len(record) < image_start(flag):
            raise DataError(
                f"{path}#{first_row + row} (byte {start + offset}) has {len(record)} bytes, but its header declares "
                f"{flag} labels, which need {image_start(flag)}. Was it written without mx.recordio.pack?"
            )
        if flag and len(record) == image_start(flag):
            continue
        with_image.append(row)
        ids.append(number)
        labels.append(np.frombuffer(record, "<f4", flag, HEADER.size) if flag else np.array([label], "<f4"))
    widths = np.array([len(each) for each in labels], np.int64)
    flat = np.concatenate([*labels, np.empty(0, "<f4")])
    return Headers(np.array(with_image, np.int64), np.array(ids, np.uint64), NumberRows.of_flat(widths, flat))
