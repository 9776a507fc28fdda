"""Appending to objects, which can only be written as a whole.

Appended bytes are kept in memory, and a thread uploads them with all before them every few seconds, so a slow store
does not slow down whoever writes a log. They are also uploaded when this process reads the file or lists its folder,
and when it ends. A process that is killed loses the last few seconds. An upload is conditional: lines that another
process has appended meanwhile are kept.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from absl import logging

from model_trainer.storage.objects.errors import ChangedError
from model_trainer.storage.objects.locks import LostLockError

if TYPE_CHECKING:
    from model_trainer.storage.objects.store import ObjectStore

__all__ = ["Appends"]

SECONDS = 10.0  # between two uploads of the same file
MAX_TIME_FRACTION = 0.02  # of uploads of one file, which take the longer the more has been appended
KEPT = 16  # files whose content is remembered after they have been closed
ATTEMPTS = 8  # to append to what other processes write at the same time


@dataclass(eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    uploaded: int = 0  # number of bytes
    version: Any = None  # of the object, for conditional writes
    due: float = 0.0  # time of the next upload, on the monotonic clock
    timer: threading.Timer | None = None
    has_failed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)  # for the values above
    uploading: threading.Lock = field(default_factory=threading.Lock)


class Appends:
    """The files of a store that this process appends to."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        atexit.register(_flush_at_exit, weakref.ref(self))

    def open(self, path: str) -> _Open:
        """Opens a file for appending; creates it if it does not exist."""
        with self._lock:
            file = self._files.pop(path, None)
        if file is None:
            file = _File()
            try:
                self._write(path, file, b"", "create")
            except FileExistsError:
                self._adopt(path, file)
        with self._lock:
            self._files[path] = file  # the newest at the end
            for other in list(self._files)[:-KEPT]:
                if self._files[other].uploaded == len(self._files[other].content):
                    del self._files[other]
        return _Open(self, path, file)

    def append(self, path: str, file: _File, data: bytes) -> None:
        """Appends; the upload follows later."""
        with file.lock:
            file.content += data
            if file.timer is None:
                file.timer = threading.Timer(max(0.0, file.due - time.monotonic()), self._flush_later, (path, file))
                file.timer.daemon = True
                file.timer.start()

    def flush(self, path: str) -> None:
        """Uploads what has been appended to a file."""
        file = self._files.get(path)
        if file is not None:
            self._upload(path, file)

    def flush_below(self, folder: str) -> None:
        """Uploads what has been appended to the files in a folder, or to the file of that path."""
        for path in list(self._files):
            if path == folder or path.startswith(f"{folder.rstrip('/')}/"):
                self.flush(path)

    def flush_all(self) -> None:
        """Uploads everything; an error is logged."""
        for path, file in list(self._files.items()):
            try:
                self._upload(path, file)
            except OSError as error:
                logging.error("%s lacks its last lines: %s.", path, error.strerror or error)

    def forget(self, path: str) -> None:
        """Forgets a file, and those in a folder, which are written or deleted in another way."""
        with self._lock:
            forgotten = [each for each in self._files if each == path or each.startswith(f"{path.rstrip('/')}/")]
            dropped = [self._files.pop(each) for each in forgotten]
        for file in dropped:
            with file.uploading:  # an upload that has begun must not come after what follows
                pass

    def _flush_later(self, path: str, file: _File) -> None:
        with file.lock:
            file.timer = None
        try:
            self._upload(path, file)
        except LostLockError:
            self.forget(path)
        except OSError as error:
            if not file.has_failed:
                logging.error("%s lacks its last lines for now: %s.", path, error.strerror or error)
            file.has_failed = True
            file.due = time.monotonic() + SECONDS
            self.append(path, file, b"")  # tries again

    def _upload(self, path: str, file: _File) -> None:
        with file.uploading:
            for attempt in range(ATTEMPTS):
                with file.lock:
                    content = bytes(file.content)
                if len(content) == file.uploaded or self._files.get(path) is not file:
                    return  # or it has been written or deleted in another way
                started = time.monotonic()
                try:
                    self._write(path, file, content, file.version or "overwrite")
                except (ChangedError, FileExistsError):
                    if attempt == ATTEMPTS - 1:
                        raise
                    self._adopt(path, file)
                    continue
                ended = time.monotonic()
                file.due = ended + max(SECONDS, (ended - started) / MAX_TIME_FRACTION)
                file.has_failed = False
                return

    def _adopt(self, path: str, file: _File) -> None:
        """Takes over the content of the object; what has not been uploaded comes after it."""
        import obstore

        url, bucket = self._store.locate(path)
        with bucket.errors(url):
            result = obstore.get(bucket.store, url.key)
            there, meta = bytes(result.bytes()), result.meta
        with file.lock:
            is_ours = there[file.uploaded :] == file.content[file.uploaded :]  # uploaded, but the answer was lost
            pending = b"" if is_ours else bytes(file.content[file.uploaded :])
            file.content[:] = there + pending
            file.uploaded = len(there)
            file.version = _version(meta)

    def _write(self, path: str, file: _File, content: bytes, mode: Any) -> None:
        import obstore

        url, bucket = self._store.locate(path)
        self._store.locks.check(url)
        with bucket.errors(url):
            result = obstore.put(bucket.store, url.key, content, mode=mode, use_multipart=False)
        file.uploaded, file.version = len(content), _version(result)


@dataclass
class _Open:
    """A file that is open for appending."""

    appends: Appends
    path: str
    file: _File

    def write(self, data: bytes) -> None:
        self.appends.append(self.path, self.file, data)

    def close(self) -> None:
        """Does nothing: what is not uploaded yet will be in a few seconds."""


def _version(meta: Any) -> dict[str, str] | None:
    """What a conditional write of obstore compares."""
    return {name: meta[name] for name in ("e_tag", "version") if meta[name]} or None


def _flush_at_exit(appends: weakref.ref[Appends]) -> None:
    living = appends()
    if living is not None:
        living.flush_all()
