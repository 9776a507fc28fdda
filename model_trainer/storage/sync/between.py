"""From one object store, or bucket, to another."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.urls import ObjectUrl
from model_trainer.storage.sync.listing import Entry, Report, list_store
from model_trainer.storage.sync.read_ahead import read_ahead
from model_trainer.storage.sync.tags import PART_BYTES, PartDigests, TagTrust, part_size_of, probable_part_sizes
from model_trainer.storage.sync.transfer import Transfer, Work
from model_trainer.storage.sync.upload import LARGE_AT_ONCE, delete_objects, make_marker, url_below
from model_trainer.storage.sync.verified import PIECE_BYTES, get_object, is_arrived, put_object, put_parts

if TYPE_CHECKING:
    from obstore import GetOptions

__all__ = ["Between"]

MAX_COPIED_BYTES = 5 << 30  # by a single request, which S3 allows


class Between(Transfer):
    """Copies objects: inside a bucket by the store itself, otherwise through this machine without its disk."""

    def __init__(self, from_store: ObjectStore, source: str, to_store: ObjectStore, target: str) -> None:
        self.source, self.target = source, target
        self._from_store, self._to_store = from_store, to_store
        self._from, self._from_bucket = from_store.locate(source)
        self._to, self._to_bucket = to_store.locate(target)
        self._from_trust, self._to_trust = TagTrust(), TagTrust()
        self._large = threading.Semaphore(LARGE_AT_ONCE)

    def sources(self, report: Report) -> Iterator[Entry]:
        return list_store(self._from_store, self.source)

    def targets(self, report: Report) -> Iterator[Entry]:
        return list_store(self._to_store, self.target)

    def is_current(self, entry: Entry, existing: Entry) -> bool:
        return existing.time_ns >= entry.time_ns or bool(entry.tag and entry.tag == existing.tag)

    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        return bool(entry.tag and entry.tag == existing.tag)

    def copy(self, entry: Entry, work: Work) -> None:
        import obstore

        work.check()
        from_url, to_url = url_below(self._from, entry.name), url_below(self._to, entry.name)
        if entry.is_folder:
            make_marker(self._to_bucket, to_url)
        elif self._from_bucket is self._to_bucket and entry.size <= MAX_COPIED_BYTES:
            with self._from_bucket.errors(from_url):
                obstore.copy(self._from_bucket.store, from_url.key, to_url.key)
            work.moved(entry.size)
        elif entry.size <= PART_BYTES:
            content, _ = get_object(self._from_bucket, from_url, self._from_trust)
            put_object(self._to_bucket, to_url, content, self._to_trust)
            work.moved(len(content))
        else:
            with self._large:
                self._copy_large(entry, from_url, to_url, work)

    def delete(self, entries: Iterable[Entry]) -> None:
        delete_objects(self._to_bucket, self._to, entries)

    def _copy_large(self, entry: Entry, from_url: ObjectUrl, to_url: ObjectUrl, work: Work) -> None:
        """Streams an object; one that arrives damaged is not completed."""

        def pieces() -> Iterator[bytes]:
            received = [PartDigests(size) for size in probable_part_sizes(entry.size, entry.tag)]
            for piece in self._stream(entry, from_url, received, work):
                yield piece
                work.moved(len(piece))
            if not received or not self._from_trust.are_md5s:
                return
            if entry.tag.strip('"') in {each.tag() for each in received}:
                self._from_trust.matched()
                return
            again = [PartDigests(received[0].part_size)]
            for _ in self._stream(entry, from_url, again, work):
                pass
            if again[0].tag() != received[0].tag():
                raise OSError(errno.EIO, "It arrived damaged", from_url.key)
            self._from_trust.disproved()

        digests = PartDigests(part_size_of(entry.size))
        tag = put_parts(self._to_bucket, to_url, read_ahead(pieces()), digests)
        content = lambda: self._stream(entry, from_url, [], work)  # noqa: E731
        if not is_arrived(self._to_bucket, to_url, tag, digests.tag(), self._to_trust, content):
            raise OSError(errno.EIO, "It arrived damaged", to_url.key)

    def _stream(self, entry: Entry, url: ObjectUrl, digests: list[PartDigests], work: Work) -> Iterator[bytes]:
        """The content of one version of an object, which goes through `digests`."""
        import obstore

        options: GetOptions = {"if_match": entry.tag or None}
        with self._from_bucket.errors(url):
            for chunk in obstore.get(self._from_bucket.store, url.key, options=options).stream(PIECE_BYTES):
                work.check()
                piece = bytes(chunk)
                for each in digests:
                    each.update(piece)
                yield piece
