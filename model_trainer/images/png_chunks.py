"""The chunks of a PNG: which of them its pixels need."""

from __future__ import annotations

import zlib

__all__ = ["only_pixels"]

# Of chunks that a decoder may skip: what says something about the pixels, and what may say how the image is turned.
_OF_PIXELS = (b"tRNS", b"eXIf")
_OF_TURN = {
    b"iTXt": (b"XML:com.adobe.xmp\0",),
    b"zTXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
    b"tEXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
}


def only_pixels(data: bytes, *, with_texts: bool) -> bytes:
    """A PNG without the chunks that its pixels do not need; empty where nothing is left out.

    Of those that a decoder may skip, damaged ones are left out in any case.

    Args:
        with_texts: whether texts that may say how the image is turned stay.
    """
    kept, position = [data[:8]], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        begins = data[position + 8 : position + 40]
        may_stay = name in _OF_PIXELS or (with_texts and begins.startswith(_OF_TURN.get(name, ())))
        if name[:1].isupper() or (may_stay and _is_whole(data[position + 4 : end])):
            kept.append(data[position:end])
        position = end
        if name == b"IEND":
            break
    plain = b"".join(kept)
    return plain if len(plain) < len(data) else b""


def _is_whole(chunk: bytes) -> bool:
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])
