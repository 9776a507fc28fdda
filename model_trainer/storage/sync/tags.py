"""Compares local files with the ETags of objects, which are MD5s unless an object is encrypted with a KMS key."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from model_trainer.storage.objects.checksums import PART_SIZES

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = [
    "PART_BYTES",
    "PartDigests",
    "TagTrust",
    "have_tag",
    "part_size_of",
    "pieces_of",
    "probable_part_sizes",
    "tag_of_digests",
]

PART_BYTES = 16 << 20  # of our own uploads, and of ranges
MAX_PARTS = 9000  # S3 allows 10,000
PIECE_BYTES = 1 << 20


class PartDigests:
    """Computes the ETag of a content that is given piece by piece.

    Attributes:
        part_size: bytes of each part but the last; 0 for an object that is uploaded by a single request.
    """

    def __init__(self, part_size: int) -> None:
        self.part_size = part_size
        self._digests: list[bytes] = []
        self._part = _md5()
        self._missing = part_size

    def update(self, piece: bytes | memoryview) -> None:
        view = memoryview(piece)
        while self.part_size and len(view) >= self._missing:
            self._part.update(view[: self._missing])
            self._digests.append(self._part.digest())
            view = view[self._missing :]
            self._part, self._missing = _md5(), self.part_size
        self._part.update(view)
        self._missing -= len(view)

    def tag(self) -> str:
        """The ETag, without quotes."""
        if not self.part_size:
            return self._part.hexdigest()
        digests = self._digests + ([self._part.digest()] if self._missing < self.part_size else [])
        return tag_of_digests(digests)


def tag_of_digests(digests: Iterable[bytes]) -> str:
    """The ETag of an object whose parts have these MD5s."""
    parts = list(digests)
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


class TagTrust:
    """Whether the ETags of a bucket are MD5s, learned from its objects."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_matched = False
        self.are_md5s = True

    def matched(self) -> None:
        """An ETag was the MD5 of its object."""
        self._has_matched = True

    def disproved(self) -> None:
        """An intact object has another ETag than its MD5."""
        with self._lock:
            self.are_md5s = self._has_matched


def part_size_of(size: int) -> int:
    """Bytes of the parts in which a file of `size` bytes is uploaded; 0 if by a single request."""
    if size <= PART_BYTES:
        return 0
    part_size = PART_BYTES
    while size > part_size * MAX_PARTS:
        part_size *= 2
    return part_size


def probable_part_sizes(size: int, tag: str) -> list[int]:
    """The part sizes with which an object can have been uploaded, the most probable first.

    Returns:
        `[0]` for an object that was uploaded by a single request; `[]` if the ETag is not made of MD5s, or the part
        size is not one of those in use.
    """
    match = re.fullmatch(r'"?[0-9a-f]{32}(?:-(\d+))?"?', tag)
    if match is None:
        return []
    if match[1] is None:
        return [0]
    count = int(match[1])
    sizes = dict.fromkeys((part_size_of(size) or PART_BYTES, *PART_SIZES))  # ours first, none twice
    return [each for each in sizes if max(1, -(-size // each)) == count]


def have_tag(pieces: Iterable[bytes], size: int, tag: str) -> bool:
    """Whether a content is that of an object, by its ETag; False if the ETag cannot tell.

    Args:
        pieces: the content.
        size: of the object.
        tag: ETag of the object.
    """
    candidates = [PartDigests(part_size) for part_size in probable_part_sizes(size, tag)]
    if not candidates:
        return False
    for piece in pieces:
        for digests in candidates:
            digests.update(piece)
    return tag.strip('"') in {digests.tag() for digests in candidates}


def pieces_of(path: str, check: Callable[[], None]) -> Iterator[bytes]:
    """The content of a file; `check` is called between its pieces, and raises to stop."""
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            check()
            yield piece


def _md5(content: bytes = b"") -> _Hash:
    return hashlib.md5(content, usedforsecurity=False)
