"""Appending to objects, which can only be written as a whole.

Appended bytes are kept in memory and uploaded with all before them: when this process reads the file or lists its
folder, when it ends, and otherwise every few seconds. A process that is killed loses the last few seconds.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from absl import logging

if TYPE_CHECKING:
    from model_trainer.storage.objects.store import ObjectStore

__all__ = ["Appends"]

SECONDS = 10.0  # between two uploads of the same file
KEPT = 16  # files whose content is remembered after they have been closed


@dataclass
class _File:
    content: bytearray
    uploaded: int = -1  # bytes of the last upload
    uploaded_at: float = -SECONDS
    timer: threading.Timer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


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
            try:
                content = self._store.read(path)
                file = _File(bytearray(content), len(content))
            except FileNotFoundError:
                file = _File(bytearray())
                self._upload(path, file)
        with self._lock:
            self._files[path] = file  # the newest at the end
            for other in list(self._files)[:-KEPT]:
                if self._files[other].uploaded == len(self._files[other].content):
                    del self._files[other]
        return _Open(self, path, file)

    def append(self, path: str, file: _File, data: bytes) -> None:
        """Appends, and uploads if the last upload is some seconds ago; if that fails, nothing is appended."""
        with file.lock:
            start = len(file.content)
            file.content += data
            if time.monotonic() - file.uploaded_at < SECONDS:
                if file.timer is None:
                    file.timer = threading.Timer(SECONDS, self._flush_later, (path, file))
                    file.timer.daemon = True
                    file.timer.start()
                return
            try:
                self._upload(path, file)
            except OSError:
                del file.content[start:]
                raise

    def flush(self, path: str) -> None:
        """Uploads what has been appended to a file."""
        file = self._files.get(path)
        if file is not None:
            with file.lock:
                self._upload(path, file)

    def flush_below(self, folder: str) -> None:
        """Uploads what has been appended to the files in a folder, or to the file of that path."""
        for path in list(self._files):
            if path == folder or path.startswith(f"{folder.rstrip('/')}/"):
                self.flush(path)

    def flush_all(self) -> None:
        """Uploads everything; an error is logged."""
        for path, file in list(self._files.items()):
            self._flush_later(path, file)

    def forget(self, path: str) -> None:
        """Forgets a file, and those in a folder, which are written or deleted in another way."""
        with self._lock:
            for each in list(self._files):
                if each == path or each.startswith(f"{path.rstrip('/')}/"):
                    del self._files[each]

    def _flush_later(self, path: str, file: _File) -> None:
        file.timer = None
        try:
            if self._files.get(path) is file:  # otherwise it has been written or deleted in another way
                self.flush(path)
        except OSError as error:
            logging.error("%s lacks its last lines: %s.", path, error.strerror)

    def _upload(self, path: str, file: _File) -> None:
        if file.uploaded == len(file.content):
            return
        self._store.put(path, bytes(file.content))
        file.uploaded, file.uploaded_at = len(file.content), time.monotonic()


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


def _flush_at_exit(appends: weakref.ref[Appends]) -> None:
    living = appends()
    if living is not None:
        living.flush_all()
