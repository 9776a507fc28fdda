"""Reads the attributes of an HDF5 file from its bytes.

A variable-length string in HDF5 is a pointer with a length, and the HDF5 library allocates that much memory before it
checks: up to 4 GB for 16 bytes of a hostile file, or the same megabyte for each of thousands of names. It offers no way
to ask for the length first. So the subset of the format that Keras writes is read here, within bounds.

Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, "Data Object Header Message Format"
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from model_trainer.errors import ModelFileError
from model_trainer.model_files.structure import ATTRIBUTE, TYPES, Content, messages, take

__all__ = ["MAX_STRING_BYTES", "Attribute", "LongStrings", "attributes_at"]

MAX_STRING_BYTES = 16 << 20  # of Keras' description of a network; NASNetLarge's has less than 1 MB
MAX_STRINGS = 1_000_000
_INTEGER, _FLOAT, _STRING, _BOOL, _LONG_STRING = 0, 1, 3, 8, 9  # type classes of HDF5


@dataclass(frozen=True)
class Attribute:
    """An attribute of a group or an array.

    Attributes:
        shape: `()` for a scalar.
        kind: the type class, a number of HDF5.
        itemsize: bytes of each value in `data`.
        data: the values; for variable-length strings the pointers to them.
        long_strings: resolves these pointers.
    """

    shape: tuple[int, ...]
    kind: int
    itemsize: int
    data: bytes
    long_strings: LongStrings

    def strings(self, max_bytes: int) -> list[str]:
        """The values of a string attribute, each of at most `max_bytes`; a scalar gives a list of one.

        Raises:
            ModelFileError: they are not strings, or longer.
        """
        if math.prod(self.shape) == 0:  # Keras writes an empty list of names with any type
            return []
        if self.kind not in (_STRING, _LONG_STRING):
            raise ModelFileError("it holds numbers where names should be")
        items = (self.data[start : start + self.itemsize] for start in range(0, len(self.data), self.itemsize))
        encoded = [self.long_strings.read(item, max_bytes) if self.kind == _LONG_STRING else item for item in items]
        try:
            return [item.rstrip(b"\0").decode() for item in encoded]
        except UnicodeDecodeError as error:
            raise ModelFileError("it holds a string that is not UTF-8") from error


class LongStrings:
    """The variable-length strings of a file, which are stored in heaps. Each heap is parsed once."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._remaining = min(MAX_STRINGS, len(content) // 16)  # each string has a header of 16 bytes

    def read(self, pointer: bytes, max_bytes: int) -> bytes:
        """The string of at most `max_bytes` that an attribute points to.

        Raises:
            ModelFileError: it is longer, or missing.
        """
        length, heap, number = struct.unpack("<IQI", pointer)
        if length == 0:
            return b""
        if length > max_bytes:
            raise ModelFileError(f"it holds a string of {length:,} bytes where the maximum is {max_bytes:,}")
        if heap not in self._heaps:
            self._heaps[heap] = self._parse(heap)
        position, stored = self._heaps[heap].get(number, (0, 0))
        if stored < length:
            raise ModelFileError(f"it is damaged at byte {heap:,}, where a string should be")
        return take(self._content, position, length)

    def _parse(self, heap: int) -> dict[int, tuple[int, int]]:
        """Offset and length in bytes of each string in a heap, by its number."""
        if take(self._content, heap, 4) != b"GCOL":
            raise ModelFileError(f"it is damaged at byte {heap:,}, where strings should be")
        (size,) = struct.unpack("<Q", take(self._content, heap + 8, 8))
        strings: dict[int, tuple[int, int]] = {}
        position = heap + 16
        while position + 16 <= min(heap + size, len(self._content)):
            number, stored = struct.unpack("<H6xQ", take(self._content, position, 16))
            if number == 0:  # the rest is free space
                break
            self._remaining -= 1
            if self._remaining < 0:
                raise ModelFileError(f"it is damaged at byte {heap:,}: it lists more strings than its bytes can hold")
            strings[number] = (position + 16, stored)
            position += 16 + (stored + 7) // 8 * 8
        return strings


def attributes_at(content: Content, address: int, long_strings: LongStrings) -> dict[str, Attribute]:
    """Reads the attributes of the object whose header begins at byte `address`.

    Raises:
        ModelFileError: the header is damaged, or an attribute has a format or type that Keras does not write.
    """
    attributes: dict[str, Attribute] = {}
    for kind, _, body in messages(content, address):
        if kind != ATTRIBUTE:
            continue
        name, attribute = _attribute(body, long_strings)
        if name in attributes:
            raise ModelFileError(f"it has two attributes {name[:60]!r}")
        attributes[name] = attribute
    return attributes


def _attribute(body: bytes, long_strings: LongStrings) -> tuple[str, Attribute]:
    try:
        version, flags, *sizes = struct.unpack_from("<BBHHH", body)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise ModelFileError("it has an attribute in a format that Keras does not write")
        position = 9 if version == 3 else 8
        fields = []
        for size in sizes:
            fields.append(body[position : position + size])
            position += (size + 7) // 8 * 8 if version == 1 else size
        name, kind_bytes, space = fields
        kind = kind_bytes[0] & 15
        (itemsize,) = struct.unpack_from("<I", kind_bytes, 4)
        shape = _shape(space)
    except (struct.error, IndexError) as error:
        raise ModelFileError("it has a damaged attribute") from error
    shown = repr(name.rstrip(b"\0").decode(errors="replace")[:60])
    is_string = kind == _STRING or (kind == _LONG_STRING and kind_bytes[1] & 15 == 1 and itemsize == 16)
    if not is_string and kind not in (_INTEGER, _FLOAT, _BOOL):
        raise ModelFileError(f"its attribute {shown} holds {TYPES.get(kind, 'an unknown type')}")
    data = body[position : position + math.prod(shape) * itemsize]
    if len(data) != math.prod(shape) * itemsize or itemsize == 0:
        raise ModelFileError(f"its attribute {shown} declares more than is stored")
    if kind == _LONG_STRING and not shape and _length(data) > MAX_STRING_BYTES:
        raise ModelFileError(
            f"its attribute {shown} is a string of {_length(data):,} bytes; the maximum is {MAX_STRING_BYTES:,}"
        )
    return name.rstrip(b"\0").decode(errors="replace"), Attribute(shape, kind, itemsize, data, long_strings)


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank, _, kind = struct.unpack_from("<BBBB", space)
    if version == 2 and kind == 2:  # a null dataspace, without any value
        return (0,)
    return struct.unpack_from(f"<{rank}Q", space, 8 if version == 1 else 4)


def _length(pointer: bytes) -> int:
    return int.from_bytes(pointer[:4], "little")
