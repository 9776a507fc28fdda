"""Writes objects: whole or not at all, and verified."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model_trainer.storage.objects.checksums import PartDigests
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import ChangedError, StoreError
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["PART_BYTES", "part_bytes", "upload_file", "write_object"]

PART_BYTES = 16 << 20  # of an upload in parts
MAX_PARTS = 9000  # S3 allows 10,000
PARTS_AT_ONCE = 4
PIECE_BYTES = 1 << 20


def write_object(bucket: Bucket, url: ObjectUrl, chunks: Iterable[bytes | memoryview], mode: Any = None) -> None:
    """Writes an object; up to the size of a part by one request.

    Args:
        bucket, url: of the object.
        chunks: its content; an error in it leaves the object as it was.
        mode: "create" to write no existing object.

    Raises:
        OSError: it could not be written, or arrived damaged.
    """
    remaining = iter(chunks)
    start, size = [], 0
    for chunk in remaining:
        start.append(bytes(chunk))
        size += len(start[-1])
        if size > PART_BYTES:
            _put_parts(bucket, url, itertools.chain(start, map(bytes, remaining)), PART_BYTES)
            return
    content = b"".join(start)
    for _ in range(2):
        if _put(bucket, url, content, mode):
            return
    raise _damaged(url)


def upload_file(bucket: Bucket, url: ObjectUrl, local: Path) -> None:
    """Writes a local file as an object, as `write_object`."""
    size = local.stat().st_size
    if size <= PART_BYTES:
        write_object(bucket, url, [local.read_bytes()])
        return
    with local.open("rb") as file:
        _put_parts(bucket, url, iter(lambda: file.read(PIECE_BYTES), b""), part_bytes(size))


def part_bytes(size: int) -> int:
    """The size of parts of a large object; more than the usual one only for an object of hundreds of gigabytes."""
    part_size = PART_BYTES
    while size > part_size * MAX_PARTS:
        part_size *= 2
    return part_size


def _put(bucket: Bucket, url: ObjectUrl, content: bytes, mode: Any) -> bool:
    """Writes an object by one request; False if what arrived was something else."""
    import obstore

    options = {"use_multipart": False} if mode is None else {"mode": mode}
    result = bucket.call(url, lambda: obstore.put(bucket.store, url.key, content, **options))
    digests = PartDigests(0)
    digests.update(content)
    return _arrived(bucket, url, result["e_tag"], digests, 0)


def _put_parts(bucket: Bucket, url: ObjectUrl, chunks: Iterator[bytes], part_size: int) -> None:
    import obstore

    digests = PartDigests(part_size)

    cause: list[BaseException] = []

    def counted() -> Iterator[bytes]:
        try:
            for chunk in chunks:
                digests.update(chunk)
                yield chunk
        except BaseException as error:
            cause.append(error)
            raise

    options: Any = {"use_multipart": True, "chunk_size": part_size, "max_concurrency": PARTS_AT_ONCE}
    try:
        with bucket.errors(url):
            result = obstore.put(bucket.store, url.key, counted(), **options)
    except OSError:
        if cause:
            raise cause[0] from None  # which obstore has made an error of the store
        raise
    if not _arrived(bucket, url, result["e_tag"], digests, part_size):
        raise _damaged(url)


def _arrived(bucket: Bucket, url: ObjectUrl, tag: str | None, digests: PartDigests, part_size: int) -> bool:
    """Whether what arrived is what was sent; reads it if the ETag does not say so."""
    import obstore

    expected = digests.tag()
    if bucket.checksums.has_arrived(expected, tag):
        return True
    arrived = PartDigests(part_size)
    try:
        with bucket.errors(url):
            for chunk in obstore.get(bucket.store, url.key, options={"if_match": tag} if tag else {}):
                arrived.update(memoryview(chunk))
    except (StoreError, ChangedError):
        return True  # it may not be read, or is another one already
    if arrived.tag() != expected:
        return False
    bucket.checksums.disprove(bool(part_size))
    return True


def _damaged(url: ObjectUrl) -> OSError:
    return OSError(errno.EIO, "what arrived does not have its checksum; write it again", f"{url.root}/{url.key}")
