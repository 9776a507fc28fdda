"""Removes the chunks of a PNG that its pixels do not need."""

from __future__ import annotations

import zlib

__all__ = ["without_ancillary_chunks"]

# Ancillary chunks that affect the pixels, and text chunks that may contain the orientation.
_AFFECTING_PIXELS = (b"tRNS", b"eXIf")
_WITH_ORIENTATION = {
    b"iTXt": (b"XML:com.adobe.xmp\0",),
    b"zTXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
    b"tEXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
}


def without_ancillary_chunks(data: bytes, *, with_texts: bool) -> bytes:
    """Removes the chunks that the pixels do not need, and damaged ancillary chunks.

    Args:
        data: the encoded PNG.
        with_texts: keep text chunks that may contain the orientation.

    Returns:
        The shorter PNG; empty if there is nothing to remove.
    """
    chunks, position = [data[:8]], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        start = data[position + 8 : position + 40]
        may_stay = name in _AFFECTING_PIXELS or (with_texts and start.startswith(_WITH_ORIENTATION.get(name, ())))
        if name[:1].isupper() or (may_stay and _is_valid(data[position + 4 : end])):
            chunks.append(data[position:end])
        position = end
        if name == b"IEND":
            break
    shortened = b"".join(chunks)
    return shortened if len(shortened) < len(data) else b""


def _is_valid(chunk: bytes) -> bool:
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])
