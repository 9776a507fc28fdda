"""How records stand in a file: a magic word, a length word, the bytes, and padding to a multiple of 4.

Where the magic word itself stands in the bytes at a multiple of 4, the record is cut there and the word left out;
the upper 3 bits of each part's length word say which part it is. All words are little-endian uint32.

Source: https://github.com/dmlc/dmlc-core/blob/main/src/recordio.cc
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from model_trainer.storage.mapped import Mapped

__all__ = ["MAGIC", "MAX_RECORD_BYTES", "BrokenRecord", "end_of_record", "frame_record", "read_record", "scan_records"]

MAGIC = 0xCED7230A
MAX_RECORD_BYTES = 2**29 - 1  # what the 29 lower bits of the length word hold

_FRAME = struct.Struct("<II")
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)

Data = Mapped


class BrokenRecord(OSError):
    """There is no record, or no whole one, at a place of the file.

    Args:
        reason: what was expected and what came.
        offset: where, in bytes.
    """

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.reason = reason
        self.offset = offset


def scan_records(data: Data, offsets: array[int]) -> None:
    """Appends where each record begins, in bytes; looks at the two words of each frame and at nothing else.

    Raises:
        BrokenRecord: what follows the records that `offsets` then holds is none.
    """
    unpack, append = _FRAME.unpack_from, offsets.append
    offset, size = 0, len(data)
    while offset <= size - _FRAME.size:
        magic, length = unpack(data, offset)
        end = offset + _FRAME.size + (length + 3 & ~3)
        if magic != MAGIC or length > MAX_RECORD_BYTES or end > size:  # in several parts, or broken
            end = end_of_record(data, offset)
        append(offset)
        offset = end
    if offset < size:
        end_of_record(data, offset)


def end_of_record(data: Data, offset: int) -> int:
    """Where the record at `offset` ends, its padding included.

    Raises:
        BrokenRecord: there is no whole record.
    """
    *_, (start, length) = _parts(data, offset)
    return start + (length + 3 & ~3)


def read_record(data: Data, offset: int) -> bytes:
    """The bytes of the record at `offset`, with the magic words that were left out.

    Raises:
        BrokenRecord: there is no whole record.
    """
    return _MAGIC_BYTES.join(data[start : start + length] for start, length in _parts(data, offset))


def frame_record(payload: bytes) -> Iterator[bytes]:
    """The bytes that stand for a record in a file, in pieces; together a multiple of 4 long."""
    begin, flag = 0, _FIRST
    found = payload.find(_MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            yield _FRAME.pack(MAGIC, flag << 29 | found - begin)
            yield payload[begin:found]
            begin, flag = found + 4, _MIDDLE
        # The word's bytes all differ, so it cannot overlap itself.
        found = payload.find(_MAGIC_BYTES, found + 4)
    last = payload[begin:]
    yield _FRAME.pack(MAGIC, (_LAST if begin else _WHOLE) << 29 | len(last))
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
    left = len(data) - offset - _FRAME.size
    if left < 0:
        raise BrokenRecord(f"the file ends {-left} bytes before the end of a record's frame", offset)
    magic, word = _FRAME.unpack_from(data, offset)
    if magic != MAGIC:
        raise BrokenRecord(f"a record begins with the word 0x{MAGIC:08x}, this one with 0x{magic:08x}", offset)
    flag, length = word >> 29, word & MAX_RECORD_BYTES
    if flag not in allowed:
        raise BrokenRecord(f"a record's part has the flag {flag} where {allowed[0]} or {allowed[1]} should be", offset)
    if length + 3 & ~3 > left:
        raise BrokenRecord(f"a record of {length} bytes begins, but the file ends after {left}", offset)
    return flag, length
