"""From a local folder to an object store."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Iterable, Iterator

from model_trainer.errors import StorageError
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.uploads import abort_uploads_of
from model_trainer.storage.objects.urls import MARKER, ObjectUrl
from model_trainer.storage.objects.writer import PART_BYTES, part_bytes, write_object, write_parts
from model_trainer.storage.sync.etags import have_etag, pieces_of
from model_trainer.storage.sync.listing import Entry, Report, list_local, list_store
from model_trainer.storage.sync.transfer import Transfer, Work

__all__ = ["LARGE_AT_ONCE", "Upload", "alone", "delete_objects", "deleted_if_damaged", "make_marker", "url_below"]

LARGE_AT_ONCE = 2  # multipart uploads, each of which has several parts in memory, here and in the server
DELETED_AT_ONCE = 1000  # by one request


class Upload(Transfer):
    """Copies files to objects."""

    def __init__(self, source: str, store: ObjectStore, target: str) -> None:
        self.source, self.target = source, target
        self._store = store
        self._url, self._bucket = store.locate(target)
        self._large = threading.Semaphore(LARGE_AT_ONCE)

    def sources(self, report: Report) -> Iterator[Entry]:
        return list_local(self.source, report)

    def targets(self, report: Report) -> Iterator[Entry]:
        return list_store(self._store, self.target)

    def is_current(self, entry: Entry, existing: Entry) -> bool:
        return existing.time_ns >= entry.time_ns

    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        return have_etag(pieces_of(self._path(entry), work.check), entry.size, existing.etag)

    def copy(self, entry: Entry, work: Work) -> None:
        url, path = url_below(self._url, entry.name), self._path(entry)
        if entry.is_folder:
            make_marker(self._bucket, url)
            return
        work.check()
        with deleted_if_damaged(self._bucket, url):
            before = os.stat(path)
            if before.st_size > PART_BYTES:
                with self._large:
                    abort_uploads_of(self._bucket, url)
                    with alone(url):
                        write_parts(self._bucket, url, self._pieces(path, work), part_bytes(before.st_size))
            else:
                with open(path, "rb", buffering=0) as file:
                    content = file.read(before.st_size + 1)
                write_object(self._bucket, url, [content])
                work.moved(len(content))
            after = os.stat(path)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise OSError(errno.EIO, "It was changed while it was copied", url_text(url))

    def delete(self, entries: Iterable[Entry]) -> None:
        delete_objects(self._bucket, self._url, entries)

    def _pieces(self, path: str, work: Work) -> Iterator[bytes]:
        for piece in pieces_of(path, work.check):
            yield piece
            work.moved(len(piece))

    def _path(self, entry: Entry) -> str:
        return os.path.join(self.source, entry.name)


@contextlib.contextmanager
def deleted_if_damaged(bucket: Bucket, url: ObjectUrl) -> Iterator[None]:
    """Deletes an object that was damaged in the `with` block: by its time it would look like a current copy."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO and error.filename == url_text(url) and not isinstance(error, StorageError):
            import obstore

            with contextlib.suppress(OSError):
                bucket.call(url, lambda: obstore.delete(bucket.store, url.key))
        raise


@contextlib.contextmanager
def alone(url: ObjectUrl) -> Iterator[None]:
    """Raises BlockingIOError if a multipart upload in the `with` block vanishes: another process has aborted it."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename != url_text(url):
            raise
        raise BlockingIOError(errno.EAGAIN, "Another process is uploading it", url_text(url)) from None


def make_marker(bucket: Bucket, url: ObjectUrl) -> None:
    """Marks an empty folder by an empty object."""
    import obstore

    bucket.call(url, lambda: obstore.put(bucket.store, f"{url.key}/{MARKER}", b""))


def delete_objects(bucket: Bucket, folder: ObjectUrl, entries: Iterable[Entry]) -> None:
    """Deletes the objects of entries below a folder."""
    import obstore

    entries = list(entries)
    marks = [url_below(folder, entry.name).key for entry in entries if entry.is_folder and entry.etag]
    entries = [entry for entry in entries if not (entry.is_folder and entry.etag)]
    keys = [url_below(folder, f"{entry.key}{MARKER}" if entry.is_folder else entry.name).key for entry in entries]
    for start in range(0, len(keys), DELETED_AT_ONCE):
        batch = keys[start : start + DELETED_AT_ONCE]
        bucket.call(folder, functools.partial(obstore.delete, bucket.store, batch))
    if marks:
        bucket.delete_markers(marks)


def url_text(url: ObjectUrl) -> str:
    """The URL as errors name it."""
    return f"{url.root}/{url.key}"


def url_below(folder: ObjectUrl, name: str) -> ObjectUrl:
    """The URL of an entry below a folder."""
    return folder._replace(key=f"{folder.key}/{name}" if folder.key else name)
