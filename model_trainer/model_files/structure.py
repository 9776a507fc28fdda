"""The skeleton of an HDF5 file, walked by hand before HDF5 walks it: headers, trees of names, heaps, trees of pieces.

HDF5 follows what a file says from place to place without counting. A tree whose branches meet again, a list that
bites its tail, or a name that thousands of entries share makes 3 KB of a file run for ever or fill the memory, inside
C code that no Ctrl-C ends. Only the form that h5py writes when nothing else is asked for, and so every Keras, is known
here.

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
    "check_skeleton",
    "messages",
    "root_address",
    "take",
]

Content = Mapped

MAX_NAME_LENGTH = 1024  # bytes
MAX_OBJECTS = 100_000  # groups and arrays; NASNetLarge with its optimizer has 12,000
MAX_MESSAGES = 256  # parts of one object's header; Keras' have about ten
MAX_BRANCHES, MAX_ENTRIES = 64, 8  # of a node and of a leaf, as h5py writes them
MIN_NODE_BYTES = 256  # a leaf has 328, all others more

# Classes of types, as HDF5 counts them.
TYPES = {
    0: "whole numbers",
    1: "numbers",
    2: "times",
    3: "texts",
    4: "bits",
    5: "raw bytes",
    6: "records",
    7: "references",
    8: "names",
    9: "values of varying length",
    10: "arrays in arrays",
}
_IN_ARRAYS = (0, 1, 5, 8)  # bfloat16 is stored as 2 raw bytes, a bool as one of two names

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NOWHERE = 2**64 - 1
# Kinds of messages, of which a header is made.
_TYPE, _LINK, _ELSEWHERE, _LAYOUT, ATTRIBUTE, _CONTINUATION, _NAMES = 0x03, 0x06, 0x07, 0x08, 0x0C, 0x10, 0x11
# Also: nothing, shape, values to fill with (old and new), filters, remark, times (old and new).
_KINDS = {0x00, 0x01, _TYPE, 0x04, 0x05, _LAYOUT, 0x0B, ATTRIBUTE, 0x0D, 0x0E, _CONTINUATION, _NAMES, 0x12}
_CHUNKED, _VIRTUAL = 2, 3  # layouts
_OUTSIDE = 64  # a kind of link


def root_address(content: Content) -> int:
    """Where the header of the root group begins.

    Raises:
        ModelFileError: the file begins in another way than those of h5py.
    """
    if content[:8] != _SIGNATURE:
        raise ModelFileError("it begins with bytes that are not HDF5's")
    if take(content, 8, 1) != b"\0" or take(content, 13, 2) != b"\x08\x08" or take(content, 24, 8) != bytes(8):
        raise ModelFileError("it is written in a form of HDF5 that no Keras chooses")
    return int.from_bytes(take(content, 64, 8), "little")


def check_skeleton(content: Content, address: int, name: str, met: set[int]) -> None:
    """Checks one group or array: its names and pieces are listed once each, and its numbers are numbers of its own.

    Args:
        address: where its header begins.
        name: for the messages.
        met: addresses of the parts of others; its own are added.

    Raises:
        ModelFileError: they are not, or it is damaged, or in a form that no Keras writes.
    """
    parts = list(messages(content, address))
    if any(kind == _LINK and len(body) > 2 and body[1] & 8 and body[2] == _OUTSIDE for kind, _, body in parts):
        raise ModelFileError(f"{name!r} holds a link to another file")
    for kind, flags, body in parts:
        if kind == _ELSEWHERE:
            raise ModelFileError(f"{name!r} has its numbers in another file")
        if kind not in _KINDS:
            raise ModelFileError(f"{name!r} is written in a form of HDF5 that no Keras chooses")
        if flags & 2:
            shared = "holds a type of its own" if kind == _TYPE else "shares what it says of itself with another"
            raise ModelFileError(f"{name!r} {shared}, not plain numbers")
        if kind == _TYPE:
            held = body[0] & 15 if body else -1
            if held not in _IN_ARRAYS:
                raise ModelFileError(f"{name!r} holds {TYPES.get(held, 'a foreign type')}, not plain numbers")
        if kind == _NAMES:
            tree, heap = _unpack("<QQ", body)
            _check_names(content, _leaves(content, tree, 0, 8, name, met), heap, name, met)
        if kind == _LAYOUT:
            _check_layout(content, body, name, met)


def messages(content: Content, address: int) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and bytes of each part of an object's header.

    Raises:
        ModelFileError: it is damaged, has too many parts, or another form.
    """
    if take(content, address, 1) != b"\x01":
        raise ModelFileError("it is written in a form of HDF5 that no Keras chooses")
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
    """`count` bytes from `start` on.

    Raises:
        ModelFileError: the file ends before.
    """
    if start + count > len(content):
        raise ModelFileError(f"it is damaged: it ends before byte {start + count:,}")
    return content[start : start + count]


def _check_layout(content: Content, body: bytes, name: str, met: set[int]) -> None:
    version, kind = _unpack("<BB", body)
    if (version, kind) == (4, _VIRTUAL):
        raise ModelFileError(f"{name!r} is a virtual data set, whose numbers lie in other files")
    if version != 3:
        raise ModelFileError(f"{name!r} is written in a form of HDF5 that no Keras chooses")
    if kind == _CHUNKED:
        ranks, tree = _unpack("<BQ", body[2:])
        if tree != _NOWHERE:
            _leaves(content, tree, 1, 8 + 8 * ranks, name, met)


def _leaves(content: Content, root: int, kind: int, key_bytes: int, name: str, met: set[int]) -> list[int]:
    """What the lowest nodes of a tree point to; each node is reached once, and the one to its right is the next."""
    nodes, level, most = [root], -1, len(content) // MIN_NODE_BYTES
    while True:
        below: list[int] = []
        for node, following in zip(nodes, [*nodes[1:], _NOWHERE], strict=True):
            signature, its_kind, its_level, count, _, right = _unpack("<4sBBHQQ", take(content, node, 24))
            level = its_level if level < 0 else level
            if (signature, its_kind, its_level) != (b"TREE", kind, level):
                raise ModelFileError(f"{name!r} is damaged at byte {node:,}, where a tree should be")
            if node in met or right != following or count > MAX_BRANCHES or len(below) > most:
                raise ModelFileError(f"{name!r} lists its parts in a circle or twice, at byte {node:,}")
            met.add(node)
            step = key_bytes + 8
            entries = take(content, node + 24, count * step + key_bytes)
            if level or kind == 0:  # below the lowest nodes of pieces lie numbers
                below += [int.from_bytes(entries[at : at + 8], "little") for at in range(key_bytes, count * step, step)]
        if level == 0:
            return below
        nodes, level = below, level - 1


def _check_names(content: Content, leaves: list[int], heap: int, name: str, met: set[int]) -> None:
    """The names in a group: the leaves of its tree list them, a heap holds them."""
    signature, size, gap, start = _unpack("<4s4xQQQ", take(content, heap, 32))
    if signature != b"HEAP" or start + size > len(content):
        raise ModelFileError(f"{name!r} is damaged at byte {heap:,}, where names should be")
    while gap not in (1, _NOWHERE):  # gaps between names point from one to the next; the last says 1
        if gap + 16 > size or start + gap in met:
            raise ModelFileError(f"{name!r} lists its parts in a circle or twice, at byte {start + gap:,}")
        met.add(start + gap)
        (gap,) = _unpack("<Q", take(content, start + gap, 8))
    listed = 0
    for leaf in leaves:
        signature, count = _unpack("<4s2xH", take(content, leaf, 8))
        if signature != b"SNOD":
            raise ModelFileError(f"{name!r} is damaged at byte {leaf:,}, where names should be listed")
        listed += count
        if leaf in met or count > MAX_ENTRIES or listed > MAX_OBJECTS:
            raise ModelFileError(f"{name!r} lists its parts twice, or more than {MAX_OBJECTS:,}, at byte {leaf:,}")
        met.add(leaf)
        for entry in range(leaf + 8, leaf + 8 + 40 * count, 40):
            (offset,) = _unpack("<Q", take(content, entry, 8))
            text = content[start + offset : start + min(size, offset + MAX_NAME_LENGTH + 1)]
            if b"\0" not in text:
                raise ModelFileError(f"{name!r} holds the name {text[:40]!r}, which is no name of a layer or an array")


def _unpack(form: str, data: bytes) -> Any:
    try:
        return struct.unpack_from(form, data)
    except struct.error as error:
        raise ModelFileError("it is damaged: a part of it is too short") from error
