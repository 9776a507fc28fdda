"""Reads and writes objects, and compares them with their ETags."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator

from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.urls import ObjectUrl
from model_trainer.storage.sync.tags import PartDigests, TagTrust, have_tag, probable_part_sizes

__all__ = ["get_object", "put_object", "put_parts"]

PARTS_AT_ONCE = 4
PIECE_BYTES = 4 << 20
ATTEMPTS = 3


def get_object(bucket: Bucket, url: ObjectUrl, trust: TagTrust) -> tuple[bytes, int]:
    """The content of an object, and its time in nanoseconds.

    If the ETag is another one, it is downloaded again: the same content twice is accepted.

    Raises:
        OSError: it cannot be read, or arrives damaged each time.
    """
    import obstore

    previous = None
    for _ in range(ATTEMPTS):
        with bucket.errors(url):
            result = obstore.get(bucket.store, url.key)
            content, meta = bytes(result.bytes()), result.meta
        size, tag, time_ns = meta["size"], meta["e_tag"] or "", int(meta["last_modified"].timestamp() * 1e9)
        if len(content) != size:
            continue
        if have_tag([content], size, tag):
            trust.matched()
            return content, time_ns
        if content == previous:
            trust.disproved()
            return content, time_ns
        if not trust.are_md5s or not probable_part_sizes(size, tag):
            return content, time_ns
        previous = content
    raise OSError(errno.EIO, f"It arrived damaged, {ATTEMPTS} times", url.key)


def put_object(bucket: Bucket, url: ObjectUrl, content: bytes, trust: TagTrust) -> None:
    """Writes an object by a single request.

    If the ETag is another one, the object is read: it is accepted if it has the content.

    Raises:
        OSError: it cannot be written, or arrives damaged each time.
    """
    import obstore

    digest = PartDigests(0)
    digest.update(content)
    for _ in range(ATTEMPTS):
        with bucket.errors(url):
            tag = obstore.put(bucket.store, url.key, content, use_multipart=False)["e_tag"]
        if is_arrived(bucket, url, tag, digest.tag(), trust, lambda: iter([content])):
            return
    raise OSError(errno.EIO, f"It arrived damaged, {ATTEMPTS} times", url.key)


def put_parts(bucket: Bucket, url: ObjectUrl, pieces: Iterable[bytes], digests: PartDigests) -> str | None:
    """Uploads an object in parts, and returns its ETag; an error in `pieces` aborts the upload.

    Args:
        bucket, url: of the object.
        pieces: its content.
        digests: gets every piece; its part size is that of the upload.
    """
    import obstore

    cause: list[Exception] = []

    def digested() -> Iterator[bytes]:
        try:
            for piece in pieces:
                digests.update(piece)
                yield piece
        except Exception as error:
            cause.append(error)
            raise

    try:
        with bucket.errors(url):
            result = obstore.put(
                bucket.store,
                url.key,
                digested(),
                use_multipart=True,
                chunk_size=digests.part_size,
                max_concurrency=PARTS_AT_ONCE,
            )
    except Exception:
        if cause:
            raise cause[0] from None  # which obstore wraps
        raise
    return result["e_tag"]


def is_arrived(
    bucket: Bucket,
    url: ObjectUrl,
    tag: str | None,
    expected: str,
    trust: TagTrust,
    content: Callable[[], Iterator[bytes]],
) -> bool:
    """Whether an object that was just written has the right content: by its ETag, otherwise by reading it.

    Args:
        bucket, url: of the object.
        tag: its ETag.
        expected: the ETag of the content.
        trust: in the ETags of the bucket.
        content: gives the content in pieces of `PIECE_BYTES`.
    """
    if (tag or "").strip('"') == expected:
        trust.matched()
        return True
    if not tag or not trust.are_md5s:
        return True
    if not _has_content(bucket, url, content()):
        return False
    trust.disproved()
    return True


def _has_content(bucket: Bucket, url: ObjectUrl, pieces: Iterator[bytes]) -> bool:
    import obstore

    expected = b""
    with bucket.errors(url):
        for chunk in obstore.get(bucket.store, url.key).stream(min_chunk_size=PIECE_BYTES):
            received = bytes(chunk)
            while len(expected) < len(received):
                piece = next(pieces, b"")
                if not piece:
                    return False
                expected += piece
            if expected[: len(received)] != received:
                return False
            expected = expected[len(received) :]
    return not expected and not next(pieces, b"")
