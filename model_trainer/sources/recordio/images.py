"""The images of a RecordIO file, read by record."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import final

import numpy as np

from model_trainer.sources.images import Images
from model_trainer.sources.recordio.framing import MAGIC, MAX_RECORD_BYTES, BrokenRecord, read_record
from model_trainer.sources.recordio.headers import HEADER, image_start
from model_trainer.sources.recordio.index import words_of
from model_trainer.storage.mapped import map_file

__all__ = ["RecordImages"]

_START = struct.Struct("<III")  # magic and length of the frame, and the header's flag


@final
@dataclass(frozen=True, eq=False)
class RecordImages(Images):
    """The image of each record of a file, read through a memory map.

    Attributes:
        path: of the `.rec` file.
        offsets: int64 `(num_records,)`, the byte offset of each record.
    """

    path: str
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def name(self, row: int) -> str:
        return f"{self.path}#{row}"

    def read(self, row: int) -> bytes:
        data, offset = map_file(self.path), int(self.offsets[row])
        if offset + 8 + HEADER.size <= len(data):
            magic, length, flag = _START.unpack_from(data, offset)
            end = offset + 8 + length
            start = offset + 8 + image_start(flag)
            if magic == MAGIC and length <= MAX_RECORD_BYTES and start <= end <= len(data):
                return data[start:end]
        record = read_record(data, offset)
        start = image_start(*struct.unpack_from("<I", record)) if len(record) >= HEADER.size else HEADER.size
        if start > len(record):
            raise BrokenRecord(f"a record of {len(record)} bytes is too short for its header", offset)
        return record[start:]

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        sizes = np.full(len(rows), -1, np.int64)
        try:
            data = map_file(self.path)
        except OSError:
            return sizes
        words, offsets = words_of(data), self.offsets[rows]
        in_range = np.flatnonzero(offsets + 12 <= len(data))  # the file may have been replaced
        at = offsets[in_range] // 4
        in_range, at = in_range[words[at] == MAGIC], at[words[at] == MAGIC]
        sizes[in_range] = words[at + 1] - image_start(words[at + 2].astype(np.int64))
        for position in in_range[words[at + 1] > MAX_RECORD_BYTES]:  # in several parts
            sizes[position] = len(self.read(int(rows[position])))
        return sizes
