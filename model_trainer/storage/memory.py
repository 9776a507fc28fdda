"""An in-memory storage, for tests."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from model_trainer.storage.storage import Entry, Info, Item, Storage

__all__ = ["Memory"]


@dataclass
class Memory(Storage):
    """A storage in the memory of this process, with only the required methods: no renaming, appending, locks or links.

    Example:
        >>> from model_trainer.storage import files
        >>> files.mount("notes", Memory())
        >>> files.write_text("notes://note.txt", "hello")
        >>> files.read_text("notes://note.txt")
        'hello'
    """

    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    changed: dict[str, int] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def info(self, path: str) -> Info | None:
        path = _clean(path)
        if path in self.files:
            return Info(False, len(self.files[path]), self.changed[path])
        return Info(True, 0, 0) if self._is_folder(path) else None

    def scan(self, folder: str) -> list[Entry]:
        folder = _clean(folder)
        with self._lock:
            if not self._is_folder(folder):
                raise _error(errno.ENOTDIR if folder in self.files else errno.ENOENT, folder)
            start = _inside(folder)
            names = {path[len(start) :].partition("/")[0] for path in self._below(folder)}
            return [Item(name, f"{start}{name}", self._is_folder(f"{start}{name}")) for name in names]

    def open(self, path: str) -> BinaryIO:
        path = _clean(path)
        if path not in self.files:
            raise _error(errno.EISDIR if self._is_folder(path) else errno.ENOENT, path)
        return io.BytesIO(self.files[path])

    def write(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        path, content = _clean(path), b"".join(chunks)
        with self._lock:
            if not self._is_folder(_parent(path)):
                raise _error(errno.ENOENT, path)
            if self._is_folder(path):
                raise _error(errno.EISDIR, path)
            self.files[path] = content
            self.changed[path] = time.time_ns()

    def delete(self, path: str) -> None:
        path = _clean(path)
        if self._is_folder(path):
            raise _error(errno.EISDIR, path)
        self.files.pop(path, None)

    def delete_folder(self, path: str) -> None:
        path = _clean(path)
        if path in self.files:
            raise _error(errno.ENOTDIR, path)
        with self._lock:
            for each in [path, *self._below(path)]:
                self.files.pop(each, None)
                self.folders.discard(each)

    def make_folder(self, path: str) -> None:
        path = _clean(path)
        with self._lock:
            if self.info(path) is not None:
                raise _error(errno.EEXIST, path)
            missing = []
            while not self._is_folder(path):
                if path in self.files:
                    raise _error(errno.ENOTDIR, path)
                missing.append(path)
                path = _parent(path)
            self.folders |= set(missing)

    def _is_folder(self, path: str) -> bool:
        return path in self.folders or path.endswith("://")  # the root always exists

    def _below(self, folder: str) -> list[str]:
        return [path for path in (*self.files, *self.folders) if path.startswith(_inside(folder))]


def _clean(path: str) -> str:
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{'/'.join(filter(None, rest.split('/')))}"


def _inside(folder: str) -> str:
    return folder if folder.endswith("/") else f"{folder}/"


def _parent(path: str) -> str:
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{rest.rpartition('/')[0]}"


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
