"""The header at the begin of each record, `<IfQQ`: flag, label, id, id2; then `flag` labels; then the image.

Flag 0 means one label, in the header itself. All is read from the memory map in blocks; no image is touched.

Source: https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/mxnet/recordio/index.html
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.recordio.framing import MAX_RECORD_BYTES, Data, read_record
from model_trainer.sources.recordio.index import words_of

__all__ = ["HEADER", "Headers", "image_start", "read_headers"]

HEADER = struct.Struct("<IfQQ")

_BLOCK = 1 << 14  # records looked at together
_MAX_LABELS = 1 << 20  # of a block, looked at together; both bound the memory


@dataclass(frozen=True, eq=False)
class Headers:
    """What the records of a file say of themselves.

    Attributes:
        rows: int64 `(num_images,)`, which records hold an image.
        ids: uint64 `(num_images,)`, the id of each of those.
        labels: the labels of each of those.
    """

    rows: np.ndarray
    ids: np.ndarray
    labels: NumberRows


def image_start(flag: int) -> int:
    """Where in a record its image begins, in bytes."""
    return HEADER.size + 4 * flag


def read_headers(path: str, data: Data, offsets: np.ndarray) -> Headers:
    """The headers of all records with an image.

    A record with packed labels and nothing behind them is left out, and a warning says so: data sets of faces
    carry some that say where each person's images are.

    Args:
        data: the file `path`.
        offsets: int64, where its records begin.

    Raises:
        DataError: a record is too short for its header and its labels, or no record holds an image.
    """
    words = words_of(data)
    parts: list[Headers] = []
    for first in range(0, len(offsets), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(offsets)))
        parts.append(_block(words, offsets, rows) or _block_by_record(path, data, offsets, rows))
    rows = np.concatenate([part.rows for part in parts])
    if not len(rows):
        raise DataError(f"{path} has {len(offsets)} records, and none holds an image.")
    if len(rows) < len(offsets):
        logging.warning("%s: %d records carry labels but no image and were left out.", path, len(offsets) - len(rows))
    return Headers(
        rows=rows,
        ids=np.concatenate([part.ids for part in parts]),
        labels=NumberRows.joined([part.labels for part in parts]),
    )


def _block(words: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> Headers | None:
    """The headers of the records `rows`; None where not each has header and labels in one piece."""
    at = offsets[rows] // 4
    lengths = (words[at + 1] & MAX_RECORD_BYTES).astype(np.int64)
    if np.any(lengths < HEADER.size):
        return None
    flags = words[at + 2].astype(np.int64)
    starts = image_start(flags)
    if np.any(lengths < starts):
        return None
    split = words[at + 1] > MAX_RECORD_BYTES  # what follows in other parts is image
    shown = (flags == 0) | (lengths > starts) | split
    rows, at, flags = rows[shown], at[shown], flags[shown]
    ids = words[at + 4].astype(np.uint64) | words[at + 5].astype(np.uint64) << np.uint64(32)
    floats = words.view("<f4")
    widths = np.maximum(flags, 1)
    first_label = at + np.where(flags == 0, 3, 8)
    parts = []
    for part in _of_few_labels(widths):
        begins = np.cumsum(widths[part]) - widths[part]
        places = np.repeat(first_label[part] - begins, widths[part]) + np.arange(widths[part].sum())
        parts.append(NumberRows.of_flat(widths[part], floats[places]))
    return Headers(rows, ids, NumberRows.joined(parts))


def _of_few_labels(widths: np.ndarray) -> Iterator[slice]:
    """Slices of records with at most `_MAX_LABELS` labels together, or one record."""
    ends = np.cumsum(widths)
    edges = [0, *(np.flatnonzero(np.diff(ends // _MAX_LABELS)) + 1).tolist(), len(widths)]
    return (slice(first, last) for first, last in itertools.pairwise(edges))


def _block_by_record(path: str, data: Data, offsets: np.ndarray, rows: np.ndarray) -> Headers:
    """The same where a record is cut within its header or its labels, or too short for them."""
    shown, ids, labels = [], [], []
    for row, offset in zip(rows.tolist(), offsets[rows].tolist(), strict=True):
        record = read_record(data, offset)
        if len(record) < HEADER.size:
            raise DataError(
                f"{path}#{row} (byte {offset}) has {len(record)} bytes; an image record has a header of "
                f"{HEADER.size}. Was it written without mx.recordio.pack?"
            )
        flag, label, number, _ = HEADER.unpack_from(record)
        if len(record) < image_start(flag):
            raise DataError(
                f"{path}#{row} (byte {offset}) has {len(record)} bytes, but its header announces {flag} "
                f"labels, which need {image_start(flag)}. Was it written without mx.recordio.pack?"
            )
        if flag and len(record) == image_start(flag):
            continue
        shown.append(row)
        ids.append(number)
        labels.append(np.frombuffer(record, "<f4", flag, HEADER.size) if flag else np.array([label], "<f4"))
    widths = np.array([len(each) for each in labels], np.int64)
    flat = np.concatenate([*labels, np.empty(0, "<f4")])
    return Headers(np.array(shown, np.int64), np.array(ids, np.uint64), NumberRows.of_flat(widths, flat))
