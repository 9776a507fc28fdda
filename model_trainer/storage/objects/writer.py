"""Writes objects: whole or not at all, and verified."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from model_trainer.storage.objects.checksums import PartDigests
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import ChangedError, StoreError, StoreUnavailableError
from model_trainer.storage.objects.fence import Fence, LateUploadError
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["PART_BYTES", "part_bytes", "upload_file", "write_object", "write_parts"]

PART_BYTES = 16 << 20  # of a multipart upload
MAX_PARTS = 9000  # S3 allows 10,000
PARTS_AT_ONCE = 4
PIECE_BYTES = 1 << 20
ATTEMPTS = 3  # to begin an upload while the lock of the run is held


def write_object(
    bucket: Bucket, url: ObjectUrl, chunks: Iterable[bytes | memoryview], fence: Fence | None = None
) -> None:
    """Writes an object: up to `PART_BYTES` by one request, otherwise by a multipart upload.

    Args:
        bucket, url: of the object.
        chunks: its content; an error in it leaves the object as it was.
        fence: keeps it from being written after another process has taken over the run; None writes without a lock.

    Raises:
        OSError: it could not be written, or arrived damaged.
    """
    remaining = iter(chunks)
    start, size = [], 0
    for chunk in remaining:
        start.append(bytes(chunk))
        size += len(start[-1])
        if size > PART_BYTES:
            write_parts(bucket, url, itertools.chain(start, map(bytes, remaining)), PART_BYTES, fence)
            return
    content = b"".join(start)
    for _ in range(2):
        if _put(bucket, url, content, fence):
            return
    raise _damaged(url)


def upload_file(bucket: Bucket, url: ObjectUrl, local: Path, fence: Fence | None = None) -> None:
    """Writes a local file as an object, as `write_object`."""
    size = local.stat().st_size
    if size <= PART_BYTES:
        write_object(bucket, url, [local.read_bytes()], fence)
        return
    with local.open("rb") as file:
        write_parts(bucket, url, iter(lambda: file.read(PIECE_BYTES), b""), part_bytes(size), fence)


def part_bytes(size: int) -> int:
    """The part size for an object of `size` bytes: `PART_BYTES`, more only for hundreds of gigabytes."""
    part_size = PART_BYTES
    while size > part_size * MAX_PARTS:
        part_size *= 2
    return part_size


def _put(bucket: Bucket, url: ObjectUrl, content: bytes, fence: Fence | None) -> bool:
    """Writes an object by one request; returns False if it arrived damaged."""
    import obstore

    if fence is not None:
        result = fence.put(bucket, url, content)
    else:
        result = bucket.call(url, lambda: obstore.put(bucket.store, url.key, content, use_multipart=False))
    digests = PartDigests(0)
    digests.update(content)
    return _has_arrived(bucket, url, result["e_tag"], digests, 0)


def write_parts(
    bucket: Bucket, url: ObjectUrl, chunks: Iterator[bytes], part_size: int, fence: Fence | None = None
) -> None:
    """Writes an object by a multipart upload; an error in `chunks`, which must not use obstore, leaves it as it was."""
    for _ in range(ATTEMPTS):
        digests = PartDigests(part_size)
        try:
            etag = _put_parts(bucket, url, chunks, digests, part_size, fence)
        except LateUploadError:
            continue  # nothing has been read from `chunks`
        if not _has_arrived(bucket, url, etag, digests, part_size):
            raise _damaged(url)
        return
    raise StoreUnavailableError(errno.ETIMEDOUT, "the store did not answer in time", f"{url.root}/{url.key}")


def _put_parts(
    bucket: Bucket,
    url: ObjectUrl,
    chunks: Iterator[bytes],
    digests: PartDigests,
    part_size: int,
    fence: Fence | None,
) -> str | None:
    import obstore

    cause: list[BaseException] = []

    def digested_chunks() -> Iterator[bytes]:
        try:
            if fence is not None:
                fence.check_upload_started(url)
            for chunk in chunks:
                digests.update(chunk)
                yield chunk
        except BaseException as error:
            cause.append(error)
            raise

    if fence is not None:
        fence.check(url)
    try:
        with bucket.errors(url):
            result = obstore.put(
                bucket.store,
                url.key,
                digested_chunks(),
                use_multipart=True,
                chunk_size=part_size,
                max_concurrency=PARTS_AT_ONCE,
            )
    except OSError:
        if cause:
            raise cause[0] from None  # obstore reports it as an error of the store
        if fence is not None:
            fence.check(url)  # raises if another process took over the run and so aborted the upload
        raise
    etag: str | None = result["e_tag"]
    return etag


def _has_arrived(bucket: Bucket, url: ObjectUrl, etag: str | None, digests: PartDigests, part_size: int) -> bool:
    """Whether the object arrived as it was sent; reads it back if the ETag does not show that."""
    import obstore

    expected = digests.etag()
    if bucket.checksums.has_arrived(expected, etag):
        return True
    arrived = PartDigests(part_size)
    try:
        with bucket.errors(url):
            for chunk in obstore.get(bucket.store, url.key, options={"if_match": etag} if etag else {}):
                arrived.update(memoryview(chunk))
    except (StoreError, ChangedError):
        return True  # it must not be read, or has been replaced already
    if arrived.etag() != expected:
        return False
    bucket.checksums.disprove(bool(part_size))
    return True


def _damaged(url: ObjectUrl) -> OSError:
    return OSError(errno.EIO, "what arrived does not have its checksum; write it again", f"{url.root}/{url.key}")
