"""Compares local files with the ETags of objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from model_trainer.storage.objects.checksums import PART_SIZES, Digest
from model_trainer.storage.objects.writer import PART_BYTES, part_bytes

__all__ = ["have_etag", "pieces_of", "range_size"]

PIECE_BYTES = 1 << 20


def have_etag(pieces: Iterable[bytes], size: int, etag: str) -> bool:
    """Whether content is that of an object, by its ETag; False also if the ETag does not show it.

    Args:
        pieces: the content.
        size: of the object.
        etag: ETag of the object.
    """
    digest = Digest(size, etag)
    if not digest.etags():
        return False
    for piece in pieces:
        digest.update(piece)
    return digest.is_complete and digest.etag in digest.etags()


def pieces_of(path: str, check: Callable[[], None]) -> Iterator[bytes]:
    """The content of a file; `check` is called between its pieces, and raises to stop."""
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            check()
            yield piece


def range_size(size: int, etag: str) -> int:
    """The size of the ranges in which an object is downloaded: that of its parts, if the ETag shows it.

    The MD5s of the ranges then make up the ETag.
    """
    count = re.fullmatch(r'"?[0-9a-f]{32}-(\d+)"?', etag)
    if count is None:
        return PART_BYTES
    candidates = (part_bytes(size), *PART_SIZES)
    return next((each for each in candidates if -(-size // each) == int(count[1])), PART_BYTES)
