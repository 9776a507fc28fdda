"""From one object store, or bucket, to another."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from model_trainer.storage.objects.checksums import Digest
from model_trainer.storage.objects.read_ahead import read_ahead
from model_trainer.storage.objects.reader import DamagedError, read_object, stream_object
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.uploads import abort_uploads_of
from model_trainer.storage.objects.urls import ObjectUrl
from model_trainer.storage.objects.writer import PART_BYTES, part_bytes, write_object, write_parts
from model_trainer.storage.sync.listing import Entry, Report, list_store
from model_trainer.storage.sync.transfer import Transfer, Work
from model_trainer.storage.sync.upload import (
    LARGE_AT_ONCE,
    alone,
    delete_objects,
    deleted_if_damaged,
    make_marker,
    url_below,
)

__all__ = ["Between"]

MAX_COPIED_BYTES = 5 << 30  # by a single request, which S3 allows


class Between(Transfer):
    """Copies objects: inside a bucket by the store itself, otherwise through this machine without its disk."""

    def __init__(self, from_store: ObjectStore, source: str, to_store: ObjectStore, target: str) -> None:
        self.source, self.target = source, target
        self._from_store, self._to_store = from_store, to_store
        self._from, self._from_bucket = from_store.locate(source)
        self._to, self._to_bucket = to_store.locate(target)
        self._large = threading.Semaphore(LARGE_AT_ONCE)

    def sources(self, report: Report) -> Iterator[Entry]:
        return list_store(self._from_store, self.source)

    def targets(self, report: Report) -> Iterator[Entry]:
        return list_store(self._to_store, self.target)

    def is_current(self, entry: Entry, existing: Entry) -> bool:
        return existing.time_ns >= entry.time_ns or bool(entry.etag and entry.etag == existing.etag)

    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        return bool(entry.etag and entry.etag == existing.etag)

    def copy(self, entry: Entry, work: Work) -> None:
        import obstore

        work.check()
        from_url, to_url = url_below(self._from, entry.name), url_below(self._to, entry.name)
        if entry.is_folder:
            make_marker(self._to_bucket, to_url)
        elif self._from_bucket is self._to_bucket and entry.size <= MAX_COPIED_BYTES:
            store = self._from_bucket.store
            self._from_bucket.call(from_url, lambda: obstore.copy(store, from_url.key, to_url.key))
            work.moved(entry.size)
        elif entry.size <= PART_BYTES:
            content, _ = read_object(self._from_bucket, from_url)
            with deleted_if_damaged(self._to_bucket, to_url):
                write_object(self._to_bucket, to_url, [content])
            work.moved(len(content))
        else:
            with self._large:
                self._copy_large(entry, from_url, to_url, work)

    def delete(self, entries: Iterable[Entry]) -> None:
        delete_objects(self._to_bucket, self._to, entries)

    def _copy_large(self, entry: Entry, from_url: ObjectUrl, to_url: ObjectUrl, work: Work) -> None:
        """Streams an object; one that arrives damaged is not completed."""
        before: Digest | None = None
        for attempt in (1, 2):
            pieces = self._pieces(from_url, before, work)
            try:
                abort_uploads_of(self._to_bucket, to_url)
                with deleted_if_damaged(self._to_bucket, to_url), alone(to_url):
                    write_parts(self._to_bucket, to_url, read_ahead(pieces), part_bytes(entry.size))
                return
            except DamagedError as error:
                before = error.digest
                if attempt == 2:
                    raise

    def _pieces(self, url: ObjectUrl, before: Digest | None, work: Work) -> Iterator[bytes]:
        for piece in stream_object(self._from_bucket, url, before):
            work.check()
            yield piece
            work.moved(len(piece))
