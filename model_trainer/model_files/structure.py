"""Checks the internal structure of an HDF5 file before the HDF5 library parses it: headers, B-trees and heaps.

The HDF5 library follows the addresses in a file without bounds. A tree whose branches meet again, a cyclic list, or a
name that thousands of entries share lets a file of 3 KB loop for ever or fill the memory, inside C code that Ctrl-C
cannot interrupt. Only the format that h5py, and so Keras, writes by default is accepted here.

Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, "Disk Format"
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from model_trainer.errors import ModelFileError
from model_trainer.storage.mapped import Mapped

__all__ = [
    "ATTRIBUTE",
    "MAX_NAME_LENGTH",
    "MAX_OBJECTS",
    "TYPES",
    "Content",
    "check_structure",
    "messages",
    "root_address",
    "take",
]

Content = Mapped

MAX_NAME_LENGTH = 1024  # bytes
MAX_OBJECTS = 100_000  # groups and arrays; NASNetLarge with its optimizer has 12,000
MAX_MESSAGES = 256  # in the header of an object; Keras' have about ten
MAX_BRANCHES, MAX_ENTRIES = 64, 8  # of a tree node and of a leaf, as h5py writes them
MIN_NODE_BYTES = 256  # a leaf has 328, all others more

# Type classes by their number in HDF5.
TYPES = {
    0: "integers",
    1: "floats",
    2: "times",
    3: "strings",
    4: "bit fields",
    5: "opaque bytes",
    6: "compound values",
    7: "references",
    8: "enumeration values",
    9: "variable-length values",
    10: "nested arrays",
}
_ARRAY_TYPES = (0, 1, 5, 8)  # bfloat16 is stored as 2 opaque bytes, a bool as an enumeration value

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = 2**64 - 1  # address
# Types of the messages in an object header.
_TYPE, _LINK, _EXTERNAL, _LAYOUT, ATTRIBUTE, _CONTINUATION, _SYMBOLS = 0x03, 0x06, 0x07, 0x08, 0x0C, 0x10, 0x11
# Also: nil, dataspace, fill value (old and new), filter pipeline, comment, modification time (old and new).
_MESSAGES = {0x00, 0x01, _TYPE, 0x04, 0x05, _LAYOUT, 0x0B, ATTRIBUTE, 0x0D, 0x0E, _CONTINUATION, _SYMBOLS, 0x12}
_CHUNKED, _VIRTUAL = 2, 3  # layout classes
_EXTERNAL_LINK = 64  # link type


def root_address(content: Content) -> int:
    """The address of the root group's header.

    Raises:
        ModelFileError: the superblock differs from those that h5py writes.
    """
    if content[:8] != _SIGNATURE:
        raise ModelFileError("it does not begin with the bytes of HDF5")
    if take(content, 8, 1) != b"\0" or take(content, 13, 2) != b"\x08\x08" or take(content, 24, 8) != bytes(8):
        raise ModelFileError("it is written with an HDF5 feature that Keras does not use")
    return int.from_bytes(take(content, 64, 8), "little")


def check_structure(content: Content, address: int, name: str, visited: set[int]) -> None:
    """Checks a group or an array: every member and chunk is listed once, and its values are numbers in this file.

    Args:
        content: the bytes of the file.
        address: where its header begins.
        name: for the messages.
        visited: addresses of tree nodes and heap entries of other objects; its own are added.

    Raises:
        ModelFileError: a member or chunk is listed twice, a value is not a number in this file, or the object is
            damaged or has a format that Keras does not write.
    """
    header = list(messages(content, address))
    if any(kind == _LINK and len(body) > 2 and body[1] & 8 and body[2] == _EXTERNAL_LINK for kind, _, body in header):
        raise ModelFileError(f"{name!r} holds a link to another file")
    for kind, flags, body in header:
        if kind == _EXTERNAL:
            raise ModelFileError(f"{name!r} stores its values in another file")
        if kind not in _MESSAGES:
            raise ModelFileError(f"{name!r} is written with an HDF5 feature that Keras does not use")
        if flags & 2:
            shared = "holds a named type" if kind == _TYPE else "shares its header with another object"
            raise ModelFileError(f"{name!r} {shared}, not plain numbers")
        if kind == _TYPE:
            type_class = body[0] & 15 if body else -1
            if type_class not in _ARRAY_TYPES:
                raise ModelFileError(f"{name!r} holds {TYPES.get(type_class, 'an unknown type')}, not plain numbers")
        if kind == _SYMBOLS:
            tree, heap = _unpack("<QQ", body)
            _check_names(content, _leaves(content, tree, 0, 8, name, visited), heap, name, visited)
        if kind == _LAYOUT:
            _check_layout(content, body, name, visited)


def messages(content: Content, address: int) -> Iterator[tuple[int, int, bytes]]:
    """Yields the messages of an object's header as `(type, flags, bytes)`.

    Raises:
        ModelFileError: the header is damaged, has too many messages, or another version.
    """
    if take(content, address, 1) != b"\x01":
        raise ModelFileError("it is written with an HDF5 feature that Keras does not use")
    (size,) = _unpack("<I", take(content, address + 8, 4))
    blocks = [(address + 16, size)]
    count = 0
    while blocks:
        position, size = blocks.pop(0)
        end = position + size
        while position + 8 <= end:
            kind, length, flags = _unpack("<HHB", take(content, position, 5))
            count += 1
            if count > MAX_MESSAGES or position + 8 + length > end:
                raise ModelFileError(f"it is damaged at byte {position:,}, in a header")
            body = take(content, position + 8, length)
            if kind == _CONTINUATION:
                blocks.append(_unpack("<QQ", body))
                count += 1
            yield kind, flags, body
            position += 8 + length


def take(content: Content, start: int, count: int) -> bytes:
    """Returns `count` bytes from `start` on.

    Raises:
        ModelFileError: the file is shorter.
    """
    if start + count > len(content):
        raise ModelFileError(f"it is damaged: it ends before byte {start + count:,}")
    return content[start : start + count]


def _check_layout(content: Content, body: bytes, name: str, visited: set[int]) -> None:
    version, kind = _unpack("<BB", body)
    if (version, kind) == (4, _VIRTUAL):
        raise ModelFileError(f"{name!r} is a virtual data set, whose values are in other files")
    if version != 3:
        raise ModelFileError(f"{name!r} is written with an HDF5 feature that Keras does not use")
    if kind == _CHUNKED:
        ranks, tree = _unpack("<BQ", body[2:])
        if tree != _UNDEFINED:
            _leaves(content, tree, 1, 8 + 8 * ranks, name, visited)


def _leaves(content: Content, root: int, kind: int, key_bytes: int, name: str, visited: set[int]) -> list[int]:
    """The addresses that the lowest nodes of a B-tree point to.

    Every node must be reached only once, and its right sibling must be the next node of the same level.
    """
    nodes, level, max_nodes = [root], -1, len(content) // MIN_NODE_BYTES
    while True:
        below: list[int] = []
        for node, following in zip(nodes, [*nodes[1:], _UNDEFINED], strict=True):
            signature, node_kind, node_level, count, _, right = _unpack("<4sBBHQQ", take(content, node, 24))
            level = node_level if level < 0 else level
            if (signature, node_kind, node_level) != (b"TREE", kind, level):
                raise ModelFileError(f"{name!r} is damaged at byte {node:,}, where a tree should be")
            if node in visited or right != following or count > MAX_BRANCHES or len(below) > max_nodes:
                raise ModelFileError(f"{name!r} lists its members in a cycle or twice, at byte {node:,}")
            visited.add(node)
            step = key_bytes + 8
            entries = take(content, node + 24, count * step + key_bytes)
            if level or kind == 0:  # the lowest nodes of a tree of chunks point to array values
                starts = range(key_bytes, count * step, step)
                below += [int.from_bytes(entries[start : start + 8], "little") for start in starts]
        if level == 0:
            return below
        nodes, level = below, level - 1


def _check_names(content: Content, leaves: list[int], heap: int, name: str, visited: set[int]) -> None:
    """Checks the member names of a group, which its tree's leaves list and a heap stores."""
    signature, size, gap, start = _unpack("<4s4xQQQ", take(content, heap, 32))
    if signature != b"HEAP" or start + size > len(content):
        raise ModelFileError(f"{name!r} is damaged at byte {heap:,}, where names should be")
    while gap not in (1, _UNDEFINED):  # the free gaps between names are a linked list, which 1 ends
        if gap + 16 > size or start + gap in visited:
            raise ModelFileError(f"{name!r} lists its members in a cycle or twice, at byte {start + gap:,}")
        visited.add(start + gap)
        (gap,) = _unpack("<Q", take(content, start + gap, 8))
    listed = 0
    for leaf in leaves:
        signature, count = _unpack("<4s2xH", take(content, leaf, 8))
        if signature != b"SNOD":
            raise ModelFileError(f"{name!r} is damaged at byte {leaf:,}, where names should be listed")
        listed += count
        if leaf in visited or count > MAX_ENTRIES or listed > MAX_OBJECTS:
            raise ModelFileError(f"{name!r} lists its members twice, or more than {MAX_OBJECTS:,}, at byte {leaf:,}")
        visited.add(leaf)
        for entry in range(leaf + 8, leaf + 8 + 40 * count, 40):
            (offset,) = _unpack("<Q", take(content, entry, 8))
            stored = content[start + offset : start + min(size, offset + MAX_NAME_LENGTH + 1)]
            if b"\0" not in stored:
                raise ModelFileError(
                    f"{name!r} holds the name {stored[:40]!r}, which is not the name of a layer or an array"
                )


def _unpack(form: str, data: bytes) -> Any:
    try:
        return struct.unpack_from(form, data)
    except struct.error as error:
        raise ModelFileError("it is damaged: one of its structures is too short") from error
