"""RecordIO files in an object store: read once from start to end for their index, then record by record."""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from absl import logging

from model_trainer.errors import DataError, StorageError
from model_trainer.sources.images import Images
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.recordio.framing import MAGIC, BrokenRecord, end_of_record, read_record, scan_records
from model_trainer.sources.recordio.headers import HEADER, Headers, headers_in, image_start, joined_headers
from model_trainer.sources.recordio.index import broken_text
from model_trainer.sources.tfrecords.cache import load_cached, save_cached
from model_trainer.storage import cached

__all__ = ["StoredRecords", "index_object"]

_FORMAT = "recordio 2"  # of the cached index
_BLOCK_BYTES = 32 << 20  # held in memory at once
_MAX_RECORD_BYTES = 1 << 30  # of a record in several parts


@final
@dataclass(frozen=True, eq=False)
class StoredRecords(Images):
    """The image of each record of an object, read by its byte range.

    Attributes:
        path: of the `.rec` file.
        etag: its ETag.
        offsets: int64 `(num_records + 1,)`, where each record starts, and where the last one ends.
        sizes: int64 `(num_records,)`, of the images in bytes.
        crcs: uint32 `(num_records,)`, the CRC-32 of the bytes of each record.
    """

    path: str
    etag: str
    offsets: np.ndarray
    sizes: np.ndarray
    crcs: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, row: int) -> str:
        return f"{self.path}#{row}"

    def read(self, row: int) -> bytes:
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        crc = int(self.crcs[row])
        return _image_in(read_record(cached.read_range_version(self.path, start, end - start, self.etag, crc), 0))

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self.sizes[rows]

    def takes_requests(self) -> bool:
        return True

    def is_cached(self, row: int) -> bool:
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return cached.is_range_cached(self.path, start, end - start, self.etag)


def index_object(path: str) -> tuple[StoredRecords, Headers]:
    """The images of a file and the headers of its records; a file that has not changed is not read again.

    Raises:
        DataError: the file is missing or damaged, or no record holds an image.
        StorageError: its store refuses every request, or does not answer.
    """
    try:
        etag, size, changed_ns = cached.version_of(path)
    except StorageError:
        raise
    except OSError:
        raise DataError(f"There is no file {path}.") from None
    if not size:
        raise DataError(f"{path} is empty. Copy or pack it again.")
    key, stamp = json.dumps([_FORMAT, etag]), (size, changed_ns)
    kept = load_cached(path, key, stamp)
    if kept is None:
        kept = _index(path, etag, size)
        save_cached(path, key, stamp, kept)
    images = StoredRecords(path, etag, kept["offsets"], kept["sizes"], kept["crcs"])
    labels = NumberRows(kept["widths"], LabelRows(kept["starts"], kept["classes"], kept["values"]))
    return images, Headers(kept["rows"], kept["ids"], labels)


def _index(path: str, etag: str, size: int) -> dict[str, np.ndarray]:
    logging.info("Reading %s once for its index: %d MB.", path, size // 1_000_000)
    try:
        return cached.read_verified(path, etag, size, lambda blocks: _index_of(path, size, blocks), _BLOCK_BYTES)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error


def _index_of(path: str, size: int, blocks: Iterator[bytes]) -> dict[str, np.ndarray]:
    chunks: list[Headers] = []
    offsets, sizes, crcs, num_records = [], [], [], 0
    for position, data, starts in _whole_records(path, size, blocks):
        # First, because its error names a record that is too short.
        chunks += headers_in(path, data, starts, num_records, position)
        offsets.append(starts + position)
        images = (_image_in(read_record(data, offset)) for offset in starts.tolist())
        sizes.append(np.fromiter(map(len, images), np.int64, len(starts)))
        ends = [*starts[1:].tolist(), len(data)]
        block_crcs = (zlib.crc32(data[first:end]) for first, end in zip(starts.tolist(), ends, strict=True))
        crcs.append(np.fromiter(block_crcs, np.uint32, len(starts)))
        num_records += len(starts)
    headers = joined_headers(path, chunks, num_records)
    return {
        "offsets": np.concatenate([*offsets, [size]]).astype(np.int64),
        "sizes": np.concatenate(sizes),
        "crcs": np.concatenate(crcs),
        "rows": headers.rows,
        "ids": headers.ids,
        "widths": headers.labels.widths,
        "starts": headers.labels.entries.starts,
        "classes": headers.labels.entries.classes,
        "values": headers.labels.entries.values,
    }


def _whole_records(path: str, size: int, blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes, np.ndarray]]:
    """Yields `(start, data, offsets)` of blocks of whole records.

    `start` is the byte offset of the block in the file, and `offsets` are those of the records in the block.
    """
    position, rest, num_records = 0, b"", 0
    for block in blocks:
        data = rest + block
        start, position = position - len(rest), position + len(block)
        scanned = array("q")
        end = len(data)
        try:
            scan_records(data, scanned)
        except BrokenRecord as error:
            end = end_of_record(data, scanned[-1]) if scanned else 0
            is_frame = len(data) - end < 4 or struct.unpack_from("<I", data, end)[0] == MAGIC
            if position == size or not is_frame or len(data) - end > _MAX_RECORD_BYTES:
                broken = BrokenRecord(error.reason, start + error.offset)
                raise DataError(broken_text(path, num_records + len(scanned), broken)) from error
        num_records += len(scanned)
        rest = data[end:]
        if scanned:
            yield start, data[:end], np.array(scanned, np.int64)


def _image_in(record: bytes) -> bytes:
    start = image_start(*struct.unpack_from("<I", record)) if len(record) >= HEADER.size else HEADER.size
    if start > len(record):
        raise BrokenRecord(f"a record of {len(record)} bytes is too short for its header", 0)
    return record[start:]
