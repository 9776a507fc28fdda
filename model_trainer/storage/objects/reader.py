"""Reads objects: one version of each, verified, and continued where a connection broke."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from model_trainer.storage.objects.checksums import Digest
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import ChangedError, StoreUnavailableError
from model_trainer.storage.objects.urls import ObjectUrl

if TYPE_CHECKING:
    from obstore import GetOptions

__all__ = ["DamagedError", "RangeReader", "read_object", "read_span", "stream_object"]

CHUNK_BYTES = 1 << 20  # that a broken connection loses at most
MAX_AHEAD = 8 << 20  # bytes, of a file that is read sequentially


class DamagedError(OSError):
    """A download does not have the checksum of its object.

    Attributes:
        digest: of the content; another download with the same digest shows that it was not damaged in transit.
    """

    def __init__(self, url: ObjectUrl, digest: Digest) -> None:
        super().__init__(errno.EIO, "its content does not have its checksum", f"{url.root}/{url.key}")
        self.digest = digest


def read_object(bucket: Bucket, url: ObjectUrl, etag: str = "", max_bytes: int | None = None) -> tuple[bytes, Any]:
    """Content and metadata of an object.

    Args:
        bucket, url: of the object.
        etag: its ETag; "" reads the version that the store has now.
        max_bytes: maximum size of the object; None reads one of any size.

    Returns:
        `(content, meta)`; meta is the `ObjectMeta` of obstore.

    Raises:
        ChangedError: the object has another ETag, or is replaced again and again while it is read.
        DamagedError: its content does not have its checksum.
        OSError: it is missing, larger than `max_bytes`, or cannot be read.
    """
    before: Digest | None = None
    for attempt in (1, 2):
        result = _get(bucket, url, etag)
        meta = result.meta
        if max_bytes is not None and meta["size"] > max_bytes:
            raise OSError(errno.EFBIG, f"it has more than the limit of {max_bytes:,} bytes", f"{url.root}/{url.key}")
        try:
            if meta["size"] <= CHUNK_BYTES:
                with bucket.errors(url):
                    content = bytes(result.bytes())
            else:
                content = b"".join(_chunks(bucket, url, result))
        except (ChangedError, StoreUnavailableError):
            if attempt == 2:
                raise
            continue  # replacing an object ends its body early, as a broken connection does
        digest = Digest(meta["size"], meta["e_tag"])
        digest.update(content)
        if bucket.checksums.accepts(digest, before, lambda: bucket.is_encrypted(url)):
            return content, meta
        before = digest
    assert before is not None
    raise DamagedError(url, before)


def stream_object(bucket: Bucket, url: ObjectUrl, before: Digest | None = None) -> Iterator[bytes]:
    """Yields the content of an object in chunks; only an error at the end shows that they were damaged.

    Args:
        bucket, url: of the object.
        before: the `digest` of the DamagedError of the previous attempt.

    Raises:
        ChangedError: the object has been replaced meanwhile.
        DamagedError: the content does not have its checksum.
    """
    result = _get(bucket, url, "")
    digest = Digest(result.meta["size"], result.meta["e_tag"])
    for chunk in _chunks(bucket, url, result):
        digest.update(chunk)
        yield chunk
    if not bucket.checksums.accepts(digest, before, lambda: bucket.is_encrypted(url)):
        raise DamagedError(url, digest)


def read_span(bucket: Bucket, url: ObjectUrl, start: int, stop: int, etag: str | None = None) -> memoryview:
    """Reads bytes `start` to `stop` (exclusive) of an object; raises as `read_object`, and OSError if it is shorter."""
    result = _get(bucket, url, etag, (start, stop))
    with bucket.errors(url):
        data = memoryview(result.bytes())
    if len(data) != stop - start:
        raise OSError(errno.EIO, f"it ends before byte {stop}", f"{url.root}/{url.key}")
    return data


def _chunks(bucket: Bucket, url: ObjectUrl, result: Any) -> Iterator[bytes]:
    """The body of a response; where the connection breaks another request continues it, if the last returned any bytes.

    obstore continues as well, but only in the first minute of a request.
    """
    size, etag = result.meta["size"], result.meta["e_tag"]
    position = start = 0
    stream = iter(result.stream(min_chunk_size=CHUNK_BYTES))
    while position < size:
        try:
            with bucket.errors(url):
                chunk = bytes(next(stream, b""))
            if not chunk:
                raise StoreUnavailableError(errno.EIO, "the store ended an answer too early", f"{url.root}/{url.key}")
        except StoreUnavailableError:
            if position == start:
                raise
            start = position
            stream = iter(_get(bucket, url, etag, (position, size)).stream(min_chunk_size=CHUNK_BYTES))
            continue
        position += len(chunk)
        yield chunk


def _get(bucket: Bucket, url: ObjectUrl, etag: str | None, span: tuple[int, int] | None = None) -> Any:
    import obstore

    options: GetOptions = {"if_match": etag} if etag else {}
    if span is not None:
        options["range"] = span
    return bucket.call(url, lambda: obstore.get(bucket.store, url.key, options=options))


class RangeReader(io.RawIOBase):
    """Reads an object by ranges; raises OSError if it changes meanwhile.

    While it is read sequentially, each range is twice as long as the one before, up to `MAX_AHEAD`.

    Args:
        bucket: of the object.
        url: of the object.
        meta: its `ObjectMeta` of obstore, with size and ETag.
    """

    def __init__(self, bucket: Bucket, url: ObjectUrl, meta: Any) -> None:
        self._bucket = bucket
        self._url = url
        self._size = int(meta["size"])
        self._etag = meta["e_tag"]
        self._position = 0
        self._ahead = memoryview(b"")
        self._ahead_start = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not view or self._position >= self._size:
            return 0
        offset = self._position - self._ahead_start
        if not 0 <= offset < len(self._ahead):
            self._fetch(len(view), follows=offset == len(self._ahead))
            offset = 0
        data = self._ahead[offset : offset + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, size: int, follows: bool) -> None:
        wanted = max(size, min(2 * len(self._ahead), MAX_AHEAD)) if follows else size
        stop = min(self._position + wanted, self._size)
        self._ahead, self._ahead_start = memoryview(b""), self._position
        self._ahead = read_span(self._bucket, self._url, self._position, stop, self._etag)
