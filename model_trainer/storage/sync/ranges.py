"""Downloads a large object by several ranges at a time, and continues where a killed process stopped."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from model_trainer.storage.objects.checksums import Digest
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import StoreUnavailableError
from model_trainer.storage.objects.reader import DamagedError
from model_trainer.storage.objects.urls import ObjectUrl
from model_trainer.storage.sync.etags import range_size
from model_trainer.storage.sync.listing import Entry
from model_trainer.storage.sync.partial import PartialFile
from model_trainer.storage.sync.transfer import Work

if TYPE_CHECKING:
    from obstore import GetOptions

__all__ = ["RangedDownload"]

STREAM_BYTES = 1 << 20
DIGEST_BYTES = 16


class RangedDownload:
    """Downloads one object to a file.

    The temporary file has, after the content, the MD5 of each range that is written. They show another process where to
    continue; and if the ranges are the parts of the object's multipart upload, the ETag follows from them.

    Args:
        bucket, url: of the object.
        entry: size, time and ETag of the version to download.
        path: of the file.
    """

    def __init__(self, bucket: Bucket, url: ObjectUrl, entry: Entry, path: str) -> None:
        self._bucket, self._url, self._entry = bucket, url, entry
        self._range_size = range_size(entry.size, entry.etag)
        self._count = -(-entry.size // self._range_size)
        self._partial = PartialFile(path, f"{url.root}/{url.key} {entry.etag} {self._range_size}")
        self._lock = threading.Lock()
        self._none_active = threading.Condition(self._lock)
        self._active = 0
        self._remaining: Iterator[int] = iter(())
        self._error: BaseException | None = None

    def run(self, work: Work, at_once: int) -> None:
        """Downloads it, in this thread and `at_once - 1` others if they are free.

        Raises:
            OSError: it cannot be read or written, or arrived damaged twice.
            Stopped: `work` is to end; the temporary file stays.
        """
        with self._partial as partial:
            partial.keeps = True
            before: Digest | None = None
            for _ in range(2):
                self._load_ranges(work, at_once)
                before = self._damaged(before, work)
                os.ftruncate(partial.descriptor, self._entry.size)  # without the digests
                if before is None:
                    partial.finish(self._entry.time_ns)
                    return
            partial.keeps = False
            assert before is not None
            raise DamagedError(self._url, before)

    def _load_ranges(self, work: Work, at_once: int) -> None:
        os.ftruncate(self._partial.descriptor, self._entry.size + self._count * DIGEST_BYTES)
        missing = [index for index in range(self._count) if not self._is_written(index, work)]
        self._remaining = iter(missing)

        def load() -> None:
            self._load(work)

        work.assist(min(at_once, len(missing)) - 1, load)
        self._load(work)
        with self._lock:
            self._remaining = iter(())  # a thread that is free only now finds nothing
            while self._active:
                self._none_active.wait()
            if self._error is not None:
                raise self._error

    def _load(self, work: Work) -> None:
        """Loads ranges until none remains."""
        while True:
            with self._lock:
                index = next(self._remaining, None) if self._error is None else None
                if index is None:
                    return
                self._active += 1
            try:
                self._load_range(index, work)
            except BaseException as error:  # noqa: BLE001 - raised by `run`
                self._error = self._error or error
            finally:
                with self._lock:
                    self._active -= 1
                    self._none_active.notify_all()

    def _load_range(self, index: int, work: Work) -> None:
        first, stop = self._range(index)
        offset = start = first
        digest = hashlib.md5(usedforsecurity=False)
        while offset < stop:
            start = offset
            try:
                for view in self._stream(start, stop):
                    work.check()
                    digest.update(view)
                    self._partial.write_at(offset, view)
                    offset += len(view)
                    work.moved(len(view))
            except StoreUnavailableError:
                if offset == start:
                    raise
            else:
                if offset < stop:
                    raise OSError(errno.EIO, f"it ends before byte {stop:,}", self._url.key)
        self._partial.write_at(self._entry.size + index * DIGEST_BYTES, digest.digest())

    def _stream(self, start: int, stop: int) -> Iterator[memoryview]:
        import obstore

        options: GetOptions = {"range": (start, stop)}
        if self._entry.etag:
            options["if_match"] = self._entry.etag
        store, key = self._bucket.store, self._url.key
        result = self._bucket.call(self._url, lambda: obstore.get(store, key, options=options))
        chunks = iter(result.stream(min_chunk_size=STREAM_BYTES))
        while True:
            with self._bucket.errors(self._url):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield memoryview(chunk)

    def _is_written(self, index: int, work: Work) -> bool:
        """Whether an earlier process has written a range, which its digest shows."""
        expected = self._digest(index)
        if expected == bytes(DIGEST_BYTES):
            return False
        start, stop = self._range(index)
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self._pieces(start, stop, work):
            digest.update(piece)
        if digest.digest() != expected:
            return False
        work.moved(stop - start)
        return True

    def _damaged(self, before: Digest | None, work: Work) -> Digest | None:
        """The digest of the download if it is damaged, so that another attempt is needed; None if it is intact."""
        ranges = b"".join(self._digest(index) for index in range(self._count))
        etag = hashlib.md5(ranges, usedforsecurity=False).hexdigest()
        if self._entry.etag.strip('"') == f"{etag}-{self._count}":
            return None
        digest = Digest(self._entry.size, self._entry.etag)
        for piece in self._pieces(0, self._entry.size, work):
            digest.update(piece)
        encrypted = self._bucket.is_encrypted
        return None if self._bucket.checksums.accepts(digest, before, lambda: encrypted(self._url)) else digest

    def _pieces(self, start: int, stop: int, work: Work) -> Iterator[bytes]:
        for offset in range(start, stop, STREAM_BYTES):
            work.check()
            yield os.pread(self._partial.descriptor, min(STREAM_BYTES, stop - offset), offset)

    def _digest(self, index: int) -> bytes:
        return os.pread(self._partial.descriptor, DIGEST_BYTES, self._entry.size + index * DIGEST_BYTES)

    def _range(self, index: int) -> tuple[int, int]:
        start = index * self._range_size
        return start, min(start + self._range_size, self._entry.size)
