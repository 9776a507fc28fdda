"""The RecordIO format: a magic word, a length word, the data, and padding to a multiple of 4 bytes.

If the data contains the magic word at a multiple of 4, the record is split there and the word omitted; the upper 3 bits
of each part's length word are its flag: whole, first, middle or last. All words are little-endian uint32.

Source: https://github.com/dmlc/dmlc-core/blob/main/src/recordio.cc
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from model_trainer.storage.mapped import Mapped

__all__ = ["MAGIC", "MAX_RECORD_BYTES", "BrokenRecord", "end_of_record", "frame_record", "read_record", "scan_records"]

MAGIC = 0xCED7230A
MAX_RECORD_BYTES = 2**29 - 1  # the 29 lower bits of the length word

_FRAME = struct.Struct("<II")
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)

Data = Mapped


class BrokenRecord(OSError):
    """There is no record, or an incomplete one, at a byte offset of the file.

    Args:
        reason: what was expected and what was read.
        offset: in bytes.
    """

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.reason = reason
        self.offset = offset


def scan_records(data: Data, offsets: array[int]) -> None:
    """Appends the byte offset of each record to `offsets`; reads only the two words of each frame.

    Raises:
        BrokenRecord: the file is damaged; `offsets` then holds those of the records before the damage.
    """
    unpack, append = _FRAME.unpack_from, offsets.append
    offset, size = 0, len(data)
    while offset <= size - _FRAME.size:
        magic, length = unpack(data, offset)
        end = offset + _FRAME.size + (length + 3 & ~3)
        if magic != MAGIC or length > MAX_RECORD_BYTES or end > size:  # split into parts, or damaged
            end = end_of_record(data, offset)
        append(offset)
        offset = end
    if offset < size:
        end_of_record(data, offset)


def end_of_record(data: Data, offset: int) -> int:
    """The byte offset of the end of the record at `offset`, including its padding.

    Raises:
        BrokenRecord: there is no complete record.
    """
    *_, (start, length) = _parts(data, offset)
    return start + (length + 3 & ~3)


def read_record(data: Data, offset: int) -> bytes:
    """The data of the record at `offset`, with the omitted magic words restored.

    Raises:
        BrokenRecord: there is no complete record.
    """
    return _MAGIC_BYTES.join(data[start : start + length] for start, length in _parts(data, offset))


def frame_record(payload: bytes) -> Iterator[bytes]:
    """Encodes a record for a file, in several pieces; their total length is a multiple of 4."""
    start, flag = 0, _FIRST
    position = payload.find(_MAGIC_BYTES)
    while position >= 0:
        if position % 4 == 0:
            yield _FRAME.pack(MAGIC, flag << 29 | position - start)
            yield payload[start:position]
            start, flag = position + 4, _MIDDLE
        # The four bytes of the magic word differ, so it cannot overlap itself.
        position = payload.find(_MAGIC_BYTES, position + 4)
    last = payload[start:]
    yield _FRAME.pack(MAGIC, (_LAST if start else _WHOLE) << 29 | len(last))
    yield last
    yield bytes(-len(last) % 4)


def _parts(data: Data, offset: int) -> Iterator[tuple[int, int]]:
    """`(start, length)` of each part of the record at `offset`."""
    allowed = (_WHOLE, _FIRST)
    while True:
        flag, length = _frame_at(data, offset, allowed)
        offset += _FRAME.size
        yield offset, length
        if flag in (_WHOLE, _LAST):
            return
        offset += length + 3 & ~3
        allowed = (_MIDDLE, _LAST)


def _frame_at(data: Data, offset: int, allowed: tuple[int, int]) -> tuple[int, int]:
    """`(flag, length)` of the part at `offset`."""
    remaining = len(data) - offset - _FRAME.size
    if remaining < 0:
        raise BrokenRecord(f"the file ends {-remaining} bytes before the end of a record's frame", offset)
    magic, word = _FRAME.unpack_from(data, offset)
    if magic != MAGIC:
        raise BrokenRecord(f"a record starts with the word 0x{MAGIC:08x}, this one with 0x{magic:08x}", offset)
    flag, length = word >> 29, word & MAX_RECORD_BYTES
    if flag not in allowed:
        raise BrokenRecord(f"a record's part has the flag {flag} where {allowed[0]} or {allowed[1]} should be", offset)
    if length + 3 & ~3 > remaining:
        raise BrokenRecord(f"a record of {length} bytes starts, but the file ends after {remaining}", offset)
    return flag, length
