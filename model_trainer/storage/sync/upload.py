"""From a local folder to an object store."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator

from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.store import MARKER, ObjectStore
from model_trainer.storage.objects.urls import ObjectUrl
from model_trainer.storage.sync.listing import Entry, Report, list_local, list_store
from model_trainer.storage.sync.tags import PartDigests, TagTrust, have_tag, part_size_of, pieces_of
from model_trainer.storage.sync.transfer import Transfer, Work
from model_trainer.storage.sync.verified import ATTEMPTS, is_arrived, put_object, put_parts

__all__ = ["LARGE_AT_ONCE", "Upload", "delete_objects", "make_marker", "url_below"]

LARGE_AT_ONCE = 4  # files in parts, of which each has some parts in memory
DELETED_AT_ONCE = 1000  # by one request


class Upload(Transfer):
    """Copies files to objects."""

    def __init__(self, source: str, store: ObjectStore, target: str) -> None:
        self.source, self.target = source, target
        self._store = store
        self._url, self._bucket = store.locate(target)
        self._trust = TagTrust()
        self._large = threading.Semaphore(LARGE_AT_ONCE)

    def sources(self, report: Report) -> Iterator[Entry]:
        return list_local(self.source, report)

    def targets(self, report: Report) -> Iterator[Entry]:
        return list_store(self._store, self.target)

    def is_current(self, entry: Entry, existing: Entry) -> bool:
        return existing.time_ns >= entry.time_ns

    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        return have_tag(pieces_of(self._path(entry), work.check), entry.size, existing.tag)

    def copy(self, entry: Entry, work: Work) -> None:
        url, path = url_below(self._url, entry.name), self._path(entry)
        if entry.is_folder:
            make_marker(self._bucket, url)
            return
        work.check()
        before = os.stat(path)
        if part_size_of(before.st_size):
            with self._large:
                self._put_large(url, path, before.st_size, work)
        else:
            with open(path, "rb", buffering=0) as file:
                content = file.read(before.st_size + 1)
            put_object(self._bucket, url, content, self._trust)
            work.moved(len(content))
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError(errno.EAGAIN, "It was changed while it was copied", path)

    def delete(self, entries: Iterable[Entry]) -> None:
        delete_objects(self._bucket, self._url, entries)

    def _put_large(self, url: ObjectUrl, path: str, size: int, work: Work) -> None:
        def pieces() -> Iterator[bytes]:
            for piece in pieces_of(path, work.check):
                yield piece
                work.moved(len(piece))

        for _ in range(ATTEMPTS):
            digests = PartDigests(part_size_of(size))
            tag = put_parts(self._bucket, url, pieces(), digests)
            written = is_arrived(
                self._bucket, url, tag, digests.tag(), self._trust, lambda: pieces_of(path, work.check)
            )
            if written:
                return
        raise OSError(errno.EIO, f"It arrived damaged, {ATTEMPTS} times", path)

    def _path(self, entry: Entry) -> str:
        return os.path.join(self.source, entry.name)


def make_marker(bucket: Bucket, url: ObjectUrl) -> None:
    """Marks an empty folder."""
    import obstore

    with bucket.errors(url):
        obstore.put(bucket.store, f"{url.key}/{MARKER}", b"")


def delete_objects(bucket: Bucket, folder: ObjectUrl, entries: Iterable[Entry]) -> None:
    """Deletes the objects of entries below a folder."""
    import obstore

    keys = [url_below(folder, entry.name).key + (f"/{MARKER}" if entry.is_folder else "") for entry in entries]
    for start in range(0, len(keys), DELETED_AT_ONCE):
        with bucket.errors(folder):
            obstore.delete(bucket.store, keys[start : start + DELETED_AT_ONCE])


def url_below(folder: ObjectUrl, name: str) -> ObjectUrl:
    """The URL of an entry below a folder."""
    return folder._replace(key=f"{folder.key}/{name}" if folder.key else name)
