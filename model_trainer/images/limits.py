"""Limits on the cost of decoding an image, such as the number of its pixels, and of the segments of its file.

A file may be hostile, or damaged in a similar way. The limits are checked on the encoded bytes, before any decoder is
called: decoders keep every segment of a header, and spend time on each of a thousand scans over the same pixels.
"""

from __future__ import annotations

import os
import re
import struct

from model_trainer.errors import ConfigError

__all__ = ["LARGE_PIXELS", "MAX_PIXELS", "MAX_SCANS", "why_too_costly"]

_VARIABLE = "MODEL_TRAINER_MAX_PIXELS"


def _max_pixels() -> int:
    text = os.environ.get(_VARIABLE, "178956970")  # Pillow's own limit
    try:
        limit = int(text)
    except ValueError:
        limit = 0
    if limit < 1:
        raise ConfigError(f"is {text!r}; expected an integer above 0, in pixels, such as 178956970.", _VARIABLE)
    return limit


# Images with more pixels are refused before decoding, so that a small file cannot fill the memory. The environment
# variable MODEL_TRAINER_MAX_PIXELS sets the limit; it is read once per process.
MAX_PIXELS = _max_pixels()

# Larger images are decoded one at a time, because they take up to 20 bytes per pixel in each decoding thread.
LARGE_PIXELS = 2**25

# A progressive JPEG usually has about 10 scans. A scan without changes takes only 100 bytes of the file, but as much
# time as any other.
MAX_SCANS = 200

_MAX_SEGMENTS = 100_000  # an image of 512 MB in chunks of 8 KB, as libpng writes them, has 65,536
_MAX_HEADER_BYTES = 2**25  # of a JPEG, whose header Pillow reads byte by byte and concatenates
_MAX_PADDING_BYTES = 2**18  # between the segments of a JPEG's header, which Pillow skips byte by byte
_MAX_VALUES = 2**22  # in the tags of a TIFF; each becomes a Python object of 40 bytes
_MAX_RUN_LENGTH_PIXELS = 2**24  # Pillow decodes such a BMP in Python, at 10 million pixels per second


def why_too_costly(data: bytes) -> str:
    """The reason why decoding would take disproportionate time or memory; empty if it would not."""
    if data.startswith(b"\xff\xd8"):
        return _of_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _of_png(data)
    if data.startswith(b"GIF8"):
        return _of_gif(data)
    if data.startswith(b"BM"):
        return _of_bmp(data)
    return _of_tiff(data) if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else ""


def _of_jpeg(data: bytes) -> str:
    position, num_segments, num_scans, num_padding = 2, 0, 0, 0
    while (marker_start := _MARKER.search(data, position)) is not None:
        if not num_scans:
            num_padding += marker_start.end() - 1 - position
            if num_padding > _MAX_PADDING_BYTES:
                return f"has more than {_MAX_PADDING_BYTES:,} bytes between the segments of its header"
        position = marker_start.end() - 1
        if not num_scans and position > _MAX_HEADER_BYTES:
            break
        marker, length = data[position + 1 : position + 2], int.from_bytes(data[position + 2 : position + 4])
        if not marker or (num_scans and marker == b"\xd9"):
            break
        position += 2 if marker in _ALONE else 2 + length
        num_segments += 1
        if num_segments > _MAX_SEGMENTS:
            return _too_many_segments()
        if marker != b"\xda":
            continue
        num_scans += 1
        if num_scans == 1 and data.count(b"\xff\xda", position) < MAX_SCANS:
            break  # the usual case: no need to search the pixels
        if num_scans > MAX_SCANS:
            return f"has more than {MAX_SCANS} scans"
        after = _NEXT_SEGMENT.search(data, position)
        if after is None:
            break
        position = after.start()
    if not num_scans and len(data) > _MAX_HEADER_BYTES:
        return f"has a header of more than {_MAX_HEADER_BYTES:,} bytes"
    if not num_scans and len(data) - position > _MAX_PADDING_BYTES:
        return f"has more than {_MAX_PADDING_BYTES:,} bytes between the segments of its header"
    return ""


_MARKER = re.compile(rb"\xff+")  # its last byte begins the marker, those before it are padding
_ALONE = [bytes([code]) for code in (0, 1, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))]  # markers without content
_NEXT_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # FF 00 and restart markers belong to the pixels


def _of_png(data: bytes) -> str:
    position, num_segments = 8, 0
    while position < len(data):
        if data[position + 4 : position + 8] == b"IEND":
            break
        position += 12 + int.from_bytes(data[position : position + 4])
        num_segments += 1
        if num_segments > _MAX_SEGMENTS:
            return _too_many_segments()
    return ""


def _of_gif(data: bytes) -> str:
    if len(data) < 14:
        return ""
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    num_segments = 0
    while data[position : position + 1] == b"!":  # extensions before the first frame
        position += 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
            num_segments += 1
            if num_segments > _MAX_SEGMENTS:
                return _too_many_segments()
        position += 1
        num_segments += 1
    return ""


def _of_bmp(data: bytes) -> str:
    if len(data) < 34:
        return ""
    header_size, width, height, _, compression = struct.unpack("<IiiII", data[14:34])
    if header_size < 40 or compression not in (1, 2):
        return ""
    num_pixels = abs(width * height)
    if num_pixels > _MAX_RUN_LENGTH_PIXELS:
        return f"has more than {_MAX_RUN_LENGTH_PIXELS:,} pixels, the limit for a run-length encoded BMP"
    if len(data) > 2**17 + 8 * num_pixels:
        return "has far more bytes than its pixels need"
    return ""


def _of_tiff(data: bytes) -> str:
    order = ">" if data.startswith(b"MM") else "<"
    is_big = data[2:4] in (b"+\0", b"\0+")
    first, count, entry = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    num_values = 0
    try:
        start = struct.unpack_from(order + first, data, 8 if is_big else 4)[0]
        num_tags = struct.unpack_from(order + count, data, start)[0]
        start += struct.calcsize(order + count)
        for number in range(min(num_tags, _MAX_SEGMENTS)):
            position = start + number * struct.calcsize(order + entry)
            tag, kind, num, raw = struct.unpack_from(order + entry, data, position)
            if kind in (1, 2, 7) or num > len(data):  # bytes and text stay unparsed; missing values are not read
                continue
            num_values += num
            if tag in (273, 324) and num > _MAX_SEGMENTS:  # strips, tiles
                return _too_many_segments()
            if tag in (322, 323) and kind in (3, 4) and num == 1:
                side = struct.unpack_from(order + ("H" if kind == 3 else "I"), raw)[0]
                if side * side > 2 * LARGE_PIXELS:  # a tile is decoded as a whole, however small the image
                    return f"has tiles of {side:,} pixels on a side"
    except (struct.error, OverflowError):
        return ""  # truncated; the decoder reports it
    return f"has more than {_MAX_VALUES:,} values in its header" if num_values > _MAX_VALUES else ""


def _too_many_segments() -> str:
    return f"consists of more than {_MAX_SEGMENTS:,} segments"
