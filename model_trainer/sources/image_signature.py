"""Recognizes image files by their suffix, otherwise by their first bytes."""

from __future__ import annotations

import os

__all__ = ["HEAD_BYTES", "IMAGE_SUFFIXES", "is_image_head"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif")
HEAD_BYTES = 12

# The first bytes of these formats, for file names without an image suffix.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a")
_TIFF = (b"II*\0", b"MM\0*")  # for names without any suffix only: raw camera files, such as .nef and .dng, have it too


def is_image_head(head: bytes, path: str) -> bool:
    """Whether the file at `path` is an image, by its first `HEAD_BYTES` bytes."""
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:] in (b"avif", b"avis"))
        or (head.startswith(_TIFF) and not os.path.splitext(path)[1])
    )
