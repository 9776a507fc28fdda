"""Appending to objects, which can only be written as a whole.

The content of a file is kept in memory, and a thread uploads all of it every few seconds, so that a slow store does not
slow down the program that writes a log. It is also uploaded when this process reads the file or lists its folder, and
when the process ends. A process that is killed loses the last few seconds. Uploads are conditional requests, so that
lines that another process has appended meanwhile are not lost.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import logging

from model_trainer.storage.objects.errors import ChangedError
from model_trainer.storage.objects.locks import LostLockError, version_in

if TYPE_CHECKING:
    from model_trainer.storage.objects.store import ObjectStore

__all__ = ["Appends"]

SECONDS = 10.0  # between two uploads of the same file
MAX_TIME_FRACTION = 0.02  # of the time is spent on uploads of one file, which take longer as it grows
KEPT = 16  # files whose content is remembered after they have been closed
ATTEMPTS = 8  # to upload a file that other processes write at the same time


@dataclass(eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    uploaded: int = 0  # number of bytes
    sent: list[int] = field(default_factory=list)  # sizes of the content in later uploads, perhaps without a response
    version: Any = None  # of the object, for conditional writes
    due: float = 0.0  # time of the next upload, on the monotonic clock
    timer: threading.Timer | None = None
    has_failed: bool = False
    handles: int = 0  # number of open ones
    lock: threading.Lock = field(default_factory=threading.Lock)  # for the values above
    uploading: threading.Lock = field(default_factory=threading.Lock)


class Appends:
    """The files of a store that this process appends to."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        atexit.register(_flush_at_exit, weakref.ref(self))

    def open(self, path: str) -> _Handle:
        """Opens a file for appending; creates it if it does not exist."""
        with self._lock:
            file = self._files.get(path)
        if file is None:
            file = _File()
            try:
                self._write(path, file, b"", "create")
            except FileExistsError:
                self._adopt(path, file)
        with self._lock:
            file = self._files[path] = self._files.pop(path, file)  # the last opened is the last item
            file.handles += 1
            for other_path, other in list(self._files.items())[:-KEPT]:
                if not other.handles and other.uploaded == len(other.content):
                    del self._files[other_path]
        return _Handle(self, path, file)

    def close(self, file: _File) -> None:
        """Notes that a handle is closed."""
        with self._lock:
            file.handles -= 1

    def append(self, path: str, file: _File, data: bytes) -> None:
        """Appends; the upload follows later."""
        with file.lock:
            file.content += data
            if file.timer is None:
                file.timer = threading.Timer(max(0.0, file.due - time.monotonic()), self._flush_later, (path, file))
                file.timer.daemon = True
                file.timer.start()

    def flush(self, path: str) -> None:
        """Uploads what has been appended to a file; forgets it if another process has taken over the run."""
        file = self._files.get(path)
        if file is not None:
            try:
                self._upload(path, file)
            except LostLockError:
                self.forget(path)

    def flush_below(self, folder: str) -> None:
        """Uploads what has been appended to the files in a folder, or to the file of that path; logs errors."""
        self._flush_logged([each for each in list(self._files) if each == folder or _is_below(each, folder)])

    def flush_all(self) -> None:
        """Uploads everything; logs errors."""
        self._flush_logged(list(self._files))

    def _flush_logged(self, paths: list[str]) -> None:
        for path in paths:
            try:
                self.flush(path)
            except OSError as error:
                logging.error("%s is missing its last lines: %s.", path, error.strerror or error)

    def forget(self, path: str) -> None:
        """Forgets a file, or all files in a folder, because the caller is going to write or delete it as a whole."""
        with self._lock:
            paths = [each for each in self._files if each == path or _is_below(each, path)]
            forgotten = [self._files.pop(each) for each in paths]
        for file in forgotten:
            with file.uploading:  # waits for a running upload, which must not overwrite what the caller writes next
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
                logging.error("%s is missing its last lines for now: %s.", path, error.strerror or error)
            file.has_failed = True
            file.due = time.monotonic() + SECONDS
            self.append(path, file, b"")  # schedules another attempt

    def _upload(self, path: str, file: _File) -> None:
        with file.uploading:
            for attempt in range(ATTEMPTS):
                with file.lock:
                    content = bytes(file.content)
                if len(content) == file.uploaded or self._files.get(path) is not file:
                    return  # all is uploaded, or `forget` was called
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
        """Downloads the object, and appends to its content what this process has not uploaded yet."""
        import obstore

        url, bucket = self._store.locate(path)
        try:
            result = bucket.call(url, lambda: obstore.get(bucket.store, url.key))
        except FileNotFoundError:  # another process has deleted it
            with file.lock:
                file.uploaded, file.version = 0, "create"
                file.sent.clear()
            return
        with bucket.errors(url):
            stored, meta = bytes(result.bytes()), result.meta
        with file.lock:
            # Bytes that an upload has stored although its response was lost are not appended twice.
            start, content = file.uploaded, bytes(file.content)
            stored_ends = [end for end in (*file.sent, len(stored)) if stored[start:end] == content[start:end]]
            file.content[:] = stored + content[max(stored_ends, default=start) :]
            file.uploaded, file.version = len(stored), version_in(meta)
            file.sent.clear()

    def _write(self, path: str, file: _File, content: bytes, mode: Any) -> None:
        import obstore

        url, bucket = self._store.locate(path)
        self._store.locks.check(url)
        file.sent.append(len(content))
        put = partial(obstore.put, bucket.store, url.key, content, mode=mode, use_multipart=False)
        result = bucket.call(url, put)
        file.uploaded, file.version = len(content), version_in(result)
        file.sent.clear()


@dataclass
class _Handle:
    """A file that is open for appending."""

    appends: Appends
    path: str
    file: _File
    is_open: bool = True

    def write(self, data: bytes) -> None:
        self.appends.append(self.path, self.file, data)

    def close(self) -> None:
        """Uploads nothing: the thread uploads the rest within a few seconds."""
        if self.is_open:
            self.is_open = False
            self.appends.close(self.file)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _flush_at_exit(appends: weakref.ref[Appends]) -> None:
    living = appends()
    if living is not None:
        living.flush_all()
