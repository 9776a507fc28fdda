"""Verifies downloaded objects by their ETags.

The ETag of an object that was uploaded by one request is the MD5 of its content; after a multipart upload it is the MD5
of the MD5s of its parts. With server-side encryption by KMS keys, and in some stores, it is neither. So the first
mismatch only causes a second download: two transfers are not damaged in the same way.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from absl import logging

__all__ = ["PART_SIZES", "Checksums", "Digest", "PartDigests"]

_MIB = 1 << 20
PART_SIZES = tuple(count * _MIB for count in (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512))


class PartDigests:
    """Computes the ETag of content that is given piece by piece.

    Args:
        part_size: bytes of each part but the last; 0 for an object that is uploaded by one request.
    """

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._digests: list[bytes] = []
        self._part = _md5()
        self._missing = part_size

    def update(self, piece: bytes | memoryview) -> None:
        view = memoryview(piece)
        while self._part_size and len(view) >= self._missing:
            self._part.update(view[: self._missing])
            self._digests.append(self._part.digest())
            view = view[self._missing :]
            self._part, self._missing = _md5(), self._part_size
        self._part.update(view)
        self._missing -= len(view)

    def etag(self) -> str:
        """The ETag, without quotes."""
        if not self._part_size:
            return self._part.hexdigest()
        digests = self._digests + ([self._part.digest()] if self._missing < self._part_size else [])
        return f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"


class Digest:
    """Compares content, given piece by piece, with the size and ETag of its object.

    Args:
        size: of the object, in bytes.
        etag: its ETag; None if the store has none.
    """

    def __init__(self, size: int, etag: str | None) -> None:
        self.etag = (etag or "").strip('"')
        self.in_parts = "-" in self.etag
        self._missing = size
        self._candidates = [PartDigests(part_size) for part_size in _part_sizes(size, self.etag)]

    def update(self, piece: bytes | memoryview) -> None:
        self._missing -= len(piece)
        for each in self._candidates:
            each.update(piece)

    @property
    def is_complete(self) -> bool:
        """Whether the content has the size of the object."""
        return self._missing == 0

    def etags(self) -> list[str]:
        """The ETags that the content could have; empty if that is unknown."""
        return [each.etag() for each in self._candidates]


@dataclass
class Checksums:
    """What has been learned about the ETags of a bucket, whose objects are probably encrypted alike.

    ETags are of two kinds: those of multipart uploads (True in the fields below) and those of single requests (False).

    Attributes:
        root: URL of the bucket, for the log.
    """

    root: str = ""
    _matched: set[bool] = field(default_factory=set)  # kinds of which an ETag was the expected MD5
    _unlike: dict[bool, str] = field(default_factory=dict)  # by kind, the ETag of an intact object that does not match
    _opaque: set[bool] = field(default_factory=set)  # kinds whose ETags are not MD5s
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accepts(self, digest: Digest, before: Digest | None, is_encrypted: Callable[[], bool]) -> bool:
        """Whether a download is intact; False asks for another one, and the second time means that it is damaged.

        Args:
            digest: of the download.
            before: of the previous download, which was not accepted; None for the first one.
            is_encrypted: asks the store whether the ETag of the object is not an MD5.
        """
        if not digest.is_complete:
            return False
        etags, kind = digest.etags(), digest.in_parts
        with self._lock:
            if digest.etag in etags:
                self._matched.add(kind)
                return True
            if not etags or kind in self._opaque:
                return True
            if before is None or before.etags() != etags:
                return False
        # The same content twice: the object is damaged in the store, or its ETag is not the MD5 for a usual part size.
        encrypted = is_encrypted()
        with self._lock:
            plausible = encrypted or kind or kind not in self._matched
            if encrypted or (plausible and self._unlike.setdefault(kind, digest.etag) != digest.etag):
                self._opaque.add(kind)
                if not encrypted:
                    logging.warning(
                        "%s: the ETags of several objects are not the MD5s of their content. Either the store computes "
                        "them differently, or downloads are modified in transit; from now on only sizes are compared.",
                        self.root or "A store",
                    )
            return plausible

    def has_arrived(self, expected: str, etag: str | None) -> bool:
        """Whether an upload has arrived as it was sent; False means that only reading it back can show that.

        Args:
            expected: the ETag of what was sent, without quotes.
            etag: that of the object; None if the store has none.
        """
        with self._lock:
            if expected == (etag or "").strip('"'):
                self._matched.add("-" in expected)
                return True
            return ("-" in expected) in self._opaque

    def disprove(self, in_parts: bool) -> None:
        """Notes that an object has arrived as it was sent but has another ETag: those of its kind are not MD5s."""
        with self._lock:
            self._opaque.add(in_parts)


def _part_sizes(size: int, etag: str) -> list[int]:
    """The sizes of parts with which an object can have been uploaded; 0 means by one request."""
    match = re.fullmatch(r"[0-9a-f]{32}(?:-(\d+))?", etag)
    if match is None:
        return []
    if match[1] is None:
        return [0]
    return [each for each in PART_SIZES if max(1, -(-size // each)) == int(match[1])]


def _md5(content: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)
