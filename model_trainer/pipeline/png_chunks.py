"""The chunks of a PNG: which of them its pixels need."""

from __future__ import annotations

import zlib

__all__ = ["only_pixels"]

# Of chunks that a decoder may skip, those that say something about the pixels.
_NEEDED_CHUNKS = (b"tRNS", b"eXIf")


def only_pixels(data: bytes) -> bytes:
    """A PNG without the chunks that its pixels and how it is turned do not need; empty where nothing can be left out.

    Of the needed ones, those that a decoder may do without are left out if they are damaged.
    """
    kept, position = [data[:8]], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        is_whole = zlib.crc32(data[position + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if name[:1].isupper() or (name in _NEEDED_CHUNKS and is_whole):
            kept.append(data[position:end])
        position = end
    plain = b"".join(kept)
    return plain if len(plain) < len(data) else b""
