"""The attributes of an HDF5 file, read from its bytes.

HDF5 reads a text of any length by a pointer that says how long it is, and takes that much memory before it looks: up
to 4 GB for 16 bytes of a hostile file, or the same megabyte for each of thousands of names. It offers no way to ask
first. So what Keras writes, and no more of the format, is read here within bounds.

Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, "Data Object Header Message Format"
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from model_trainer.errors import ModelFileError
from model_trainer.model_files.structure import ATTRIBUTE, TYPES, Content, messages, take

__all__ = ["MAX_STRING_BYTES", "Attribute", "LongStrings", "attributes_at"]

MAX_STRING_BYTES = 16 << 20  # the description of a network by Keras; NASNetLarge's has under 1 MB
MAX_STRINGS = 1_000_000
_NUMBER, _FLOAT, _TEXT, _BOOL, _LONG_TEXT = 0, 1, 3, 8, 9  # classes of types


@dataclass(frozen=True)
class Attribute:
    """An attribute of a group or an array.

    Attributes:
        shape: `()` for a single value.
        kind: the class of its type, as HDF5 counts them.
        itemsize: bytes of each value in `data`.
        data: the values, or of long texts the pointers to them.
        long_strings: of the file.
    """

    shape: tuple[int, ...]
    kind: int
    itemsize: int
    data: bytes
    long_strings: LongStrings

    def texts(self, longest: int) -> list[str]:
        """Its values, which are texts of at most `longest` bytes; a single one gives a list of one.

        Raises:
            ModelFileError: they are no texts, or longer.
        """
        if math.prod(self.shape) == 0:  # Keras leaves the type open where there is no name
            return []
        if self.kind not in (_TEXT, _LONG_TEXT):
            raise ModelFileError("it holds numbers where names should be")
        items = (self.data[at : at + self.itemsize] for at in range(0, len(self.data), self.itemsize))
        found = [self.long_strings.read(item, longest) if self.kind == _LONG_TEXT else item for item in items]
        try:
            return [item.rstrip(b"\0").decode() for item in found]
        except UnicodeDecodeError as error:
            raise ModelFileError("it holds a text that is no UTF-8") from error


class LongStrings:
    """The texts of any length in a file, which lie in heaps. Each heap is walked once, and no two of them overlap."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._left = min(MAX_STRINGS, len(content) // 16)  # each text takes 16 bytes beside its own

    def read(self, pointer: bytes, longest: int) -> bytes:
        """The text of at most `longest` bytes that an attribute points to.

        Raises:
            ModelFileError: it is longer, or not there.
        """
        length, heap, number = struct.unpack("<IQI", pointer)
        if length == 0:
            return b""
        if length > longest:
            raise ModelFileError(f"it holds a text of {length:,} bytes where {longest:,} are the most")
        if heap not in self._heaps:
            self._heaps[heap] = self._walk(heap)
        position, stored = self._heaps[heap].get(number, (0, 0))
        if stored < length:
            raise ModelFileError(f"it is damaged at byte {heap:,}, where a text should be")
        return take(self._content, position, length)

    def _walk(self, heap: int) -> dict[int, tuple[int, int]]:
        """Where each text begins, and how many bytes it has."""
        if take(self._content, heap, 4) != b"GCOL":
            raise ModelFileError(f"it is damaged at byte {heap:,}, where texts should be")
        (size,) = struct.unpack("<Q", take(self._content, heap + 8, 8))
        texts: dict[int, tuple[int, int]] = {}
        position = heap + 16
        while position + 16 <= min(heap + size, len(self._content)):
            number, stored = struct.unpack("<H6xQ", take(self._content, position, 16))
            if number == 0:  # the rest is free
                break
            self._left -= 1
            if self._left < 0:
                raise ModelFileError(f"it is damaged at byte {heap:,}: it lists more texts than its bytes can hold")
            texts[number] = (position + 16, stored)
            position += 16 + (stored + 7) // 8 * 8
        return texts


def attributes_at(content: Content, address: int, long_strings: LongStrings) -> dict[str, Attribute]:
    """The attributes of the object whose header begins at byte `address`.

    Raises:
        ModelFileError: it is damaged, or has a form or a type of attribute that no Keras writes.
    """
    found: dict[str, Attribute] = {}
    for kind, _, body in messages(content, address):
        if kind != ATTRIBUTE:
            continue
        name, attribute = _attribute(body, long_strings)
        if name in found:
            raise ModelFileError(f"it has two attributes {name[:60]!r}")
        found[name] = attribute
    return found


def _attribute(body: bytes, long_strings: LongStrings) -> tuple[str, Attribute]:
    try:
        version, flags, *sizes = struct.unpack_from("<BBHHH", body)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise ModelFileError("it has an attribute in a form that no Keras writes")
        position = 9 if version == 3 else 8
        parts = []
        for size in sizes:
            parts.append(body[position : position + size])
            position += (size + 7) // 8 * 8 if version == 1 else size
        name, kind_bytes, space = parts
        kind = kind_bytes[0] & 15
        (itemsize,) = struct.unpack_from("<I", kind_bytes, 4)
        shape = _shape(space)
    except (struct.error, IndexError) as error:
        raise ModelFileError("it has a damaged attribute") from error
    shown = repr(name.rstrip(b"\0").decode(errors="replace")[:60])
    is_text = kind == _TEXT or (kind == _LONG_TEXT and kind_bytes[1] & 15 == 1 and itemsize == 16)
    if not is_text and kind not in (_NUMBER, _FLOAT, _BOOL):
        raise ModelFileError(f"its attribute {shown} holds {TYPES.get(kind, 'a foreign type')}")
    data = body[position : position + math.prod(shape) * itemsize]
    if len(data) != math.prod(shape) * itemsize or itemsize == 0:
        raise ModelFileError(f"its attribute {shown} declares more than is stored")
    if kind == _LONG_TEXT and not shape and _length(data) > MAX_STRING_BYTES:
        raise ModelFileError(
            f"its attribute {shown} is a text of {_length(data):,} bytes; {MAX_STRING_BYTES:,} are the most"
        )
    return name.rstrip(b"\0").decode(errors="replace"), Attribute(shape, kind, itemsize, data, long_strings)


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank, _, kind = struct.unpack_from("<BBBB", space)
    if version == 2 and kind == 2:  # no value at all
        return (0,)
    return struct.unpack_from(f"<{rank}Q", space, 8 if version == 1 else 4)


def _length(pointer: bytes) -> int:
    return int.from_bytes(pointer[:4], "little")
