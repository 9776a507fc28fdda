"""Object stores as a storage: s3://, gs:// and az://."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from model_trainer.errors import StorageError
from model_trainer.storage.objects.appends import Appends
from model_trainer.storage.objects.checksums import Digest
from model_trainer.storage.objects.connection import Bucket, Connections
from model_trainer.storage.objects.errors import ChangedError
from model_trainer.storage.objects.fence import Fence
from model_trainer.storage.objects.folders import clear_leftovers, complete_folders, write_folder
from model_trainer.storage.objects.locks import LOCK, Locks
from model_trainer.storage.objects.read_ahead import read_ahead
from model_trainer.storage.objects.reader import DamagedError, RangeReader, read_object, read_span, stream_object
from model_trainer.storage.objects.urls import MARKER, ObjectUrl, parse_url
from model_trainer.storage.objects.versions import changed_ns
from model_trainer.storage.objects.writer import upload_file, write_object
from model_trainer.storage.storage import Appender, Entry, Info, Item, Storage

__all__ = ["ObjectStore"]

BUFFER_BYTES = 1 << 18
MAX_COPY_BYTES = 5_000_000_000  # that S3 copies in one request


class ObjectStore(Storage):
    """The buckets of an object store, connected at the first use.

    Single objects are written atomically. What a disk does by renaming is done by several requests, in an order in
    which a reader never sees an incomplete folder as complete.
    """

    def __init__(self) -> None:
        self.connections = Connections()
        self.locks = Locks()
        self._fence = Fence(self.locks)
        self._appends = Appends(self)

    # Reading.

    def info(self, path: str) -> Info | None:
        url, bucket = self.locate(path)
        self._appends.flush_below(path)
        if url.key:
            with contextlib.suppress(FileNotFoundError):
                meta = bucket.head(url)
                return Info(False, meta["size"], changed_ns(meta))
        return Info(True, 0, 0) if self._is_folder(url, bucket) else None

    def scan(self, folder: str) -> list[Entry]:
        import obstore

        url, bucket = self.locate(folder)
        self._appends.flush_below(folder)
        listing = bucket.call(url, lambda: obstore.list_with_delimiter(bucket.store, url.key or None))
        if not listing["objects"] and not listing["common_prefixes"] and url.key:
            is_file = self._meta(url, bucket) is not None
            raise _error(errno.ENOTDIR if is_file else errno.ENOENT, folder)
        start = f"{url.root}/{url.key}/" if url.key else f"{url.root}/"
        names = [(PurePath(path).name, True) for path in listing["common_prefixes"]]
        names += [(PurePath(meta["path"]).name, False) for meta in listing["objects"] if meta["path"] != url.key]
        return [Item(name, f"{start}{name}", is_folder) for name, is_folder in names if name not in (MARKER, LOCK)]

    def open(self, path: str) -> BinaryIO:
        url, bucket = self.locate(path)
        self._appends.flush(path)
        return io.BufferedReader(RangeReader(bucket, url, self._existing(url, bucket, path)), BUFFER_BYTES)

    def read(self, path: str) -> bytes:
        url, bucket = self.locate(path)
        self._appends.flush(path)
        if url.key:
            with contextlib.suppress(FileNotFoundError):
                return read_object(bucket, url)[0]
        raise _error(errno.EISDIR if self._is_folder(url, bucket) else errno.ENOENT, path)

    def read_range(self, path: str, start: int, size: int) -> bytes:
        url, bucket = self.locate(path)
        return bytes(read_span(bucket, url, start, start + size)) if size else b""

    # Writing.

    def write(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        url, bucket = self.locate(path)
        if not url.key:
            raise _error(errno.EISDIR, path)
        self.locks.check(url)
        self._appends.forget(path)
        write_object(bucket, url, chunks, self._fence)

    def put(self, path: str, content: bytes) -> None:
        """Writes an object."""
        url, bucket = self.locate(path)
        write_object(bucket, url, [content])

    def delete(self, path: str) -> None:
        import obstore

        url, bucket = self.locate(path)
        if self._is_folder(url, bucket):
            raise _error(errno.EISDIR, path)
        self.locks.check(url)
        self._appends.forget(path)
        with contextlib.suppress(FileNotFoundError):
            self._fence.call(bucket, url, lambda store: obstore.delete(store, url.key))

    def delete_folder(self, path: str) -> None:
        import obstore

        url, bucket = self.locate(path)
        if not url.key:
            raise OSError(errno.EPERM, "deleting a whole bucket is not supported", path)
        self.locks.check(url)
        self._appends.forget(path)
        with bucket.errors(url):
            if self._meta(url, bucket) is not None:
                raise _error(errno.ENOTDIR, path)
            for page in obstore.list(bucket.store, url.key, chunk_size=1000):
                keys = [meta["path"] for meta in page]
                self._fence.call(bucket, url, partial(_delete, keys))
                bucket.delete_markers({url.key, *(key.rpartition("/")[0] for key in keys)})

    def make_folder(self, path: str) -> None:
        import obstore

        url, bucket = self.locate(path)
        if self.info(path) is not None:
            raise _error(errno.EEXIST, path)
        self.locks.check(url)
        bucket.call(url, lambda: obstore.put(bucket.store, f"{url.key}/{MARKER}", b"", mode="create"))

    def append(self, path: str) -> Appender:
        return self._appends.open(path)

    def copy(self, source: str, target: str) -> None:
        import obstore

        (from_url, bucket), (to_url, to_bucket) = self.locate(source), self.locate(target)
        self.locks.check(to_url)
        self._appends.flush(source)
        if bucket is not to_bucket or self._existing(from_url, bucket, source)["size"] > MAX_COPY_BYTES:
            self.write(target, read_ahead(stream_object(bucket, from_url)))
            return
        self._fence.call(bucket, to_url, lambda store: obstore.copy(store, from_url.key, to_url.key))

    def lock(self, folder: str, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        url, bucket = self.locate(folder)
        return self.locks.lock(bucket, url, shared)

    def check_room(self, path: str, num_bytes: int) -> None:
        """Checks the local folder of the temporary file that `atomic_write` yields."""
        folder = tempfile.gettempdir()
        if shutil.disk_usage(folder).free < num_bytes:
            error = StorageError(
                f"{path} could not be written: {folder}, where it is made, has too little space. Choose another folder "
                "by the environment variable TMPDIR."
            )
            error.errno = errno.ENOSPC
            raise error

    def check_lock(self, path: str) -> None:
        self.locks.check_lost(parse_url(path))

    def write_folder(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
        write_folder(self, folder, files)

    def complete_folders(self, parent: str, prefix: str) -> dict[str, str]:
        return complete_folders(self, parent, prefix)

    def clear_leftovers(self, parent: str) -> None:
        clear_leftovers(self, parent)

    # For libraries that read and write files themselves.

    @contextlib.contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePath(path).name
            self.download(path, local)
            yield local

    @contextlib.contextmanager
    def atomic_write(self, path: str) -> Iterator[Path]:
        url, bucket = self.locate(path)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePath(path).name
            yield local
            self.locks.check(url)
            self._appends.forget(path)
            upload_file(bucket, url, local, self._fence)

    def download(self, path: str, local: Path) -> None:
        """Streams an object to a local file.

        Raises:
            OSError: it is missing, cannot be read, or arrives damaged twice; the file is then incomplete.
        """
        url, bucket = self.locate(path)
        self._appends.flush(path)
        before: Digest | None = None
        for attempt in (1, 2):
            try:
                with open(local, "wb") as file:
                    file.writelines(stream_object(bucket, url, before))
                return
            except DamagedError as error:
                before = error.digest
                if attempt == 2:
                    raise
            except ChangedError:
                if attempt == 2:
                    raise

    def locate(self, path: str) -> tuple[ObjectUrl, Bucket]:
        """The parts of a path, and its connected bucket."""
        url = parse_url(path)
        return url, self.connections.bucket(url)

    def _is_folder(self, url: ObjectUrl, bucket: Bucket) -> bool:
        import obstore

        page = bucket.call(url, lambda: next(iter(obstore.list(bucket.store, url.key or None, chunk_size=1)), None))
        return bool(page) or not url.key

    def _meta(self, url: ObjectUrl, bucket: Bucket) -> Any:
        with contextlib.suppress(FileNotFoundError):
            return bucket.head(url)
        return None

    def _existing(self, url: ObjectUrl, bucket: Bucket, path: str) -> Any:
        meta = self._meta(url, bucket) if url.key else None
        if meta is None:
            raise _error(errno.EISDIR if self._is_folder(url, bucket) else errno.ENOENT, path)
        return meta


def _delete(keys: list[str], store: Any) -> None:
    import obstore

    obstore.delete(store, keys)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
