"""Files in the memory of this process, which are gone with it; for tests."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from model_trainer.storage.storage import Entry, Info, Item, Storage

__all__ = ["Memory"]


@dataclass
class Memory(Storage):
    """A store with the least that one can have: no renaming, appending, locks or links.

    Example:
        >>> files.mount("memory", Memory())
        >>> files.write_text("memory://box/note.txt", "hello")
    """

    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    changed: dict[str, int] = field(default_factory=dict)

    def info(self, path: str) -> Info | None:
        path = path.rstrip("/")
        if path in self.files:
            return Info(False, len(self.files[path]), self.changed[path])
        return Info(True, 0, 0) if self._is_folder(path) else None

    def scan(self, folder: str) -> list[Entry]:
        folder = folder.rstrip("/")
        if not self._is_folder(folder):
            raise _error(errno.ENOTDIR if folder in self.files else errno.ENOENT, folder)
        inside = {path[len(folder) + 1 :].partition("/")[0] for path in self._below(folder)}
        return [Item(name, f"{folder}/{name}", self._is_folder(f"{folder}/{name}")) for name in inside]

    def open(self, path: str) -> BinaryIO:
        if path not in self.files:
            raise _error(errno.EISDIR if self._is_folder(path) else errno.ENOENT, path)
        return io.BytesIO(self.files[path])

    def write(self, path: str, parts: Iterable[bytes | memoryview]) -> None:
        if not self._is_folder(path.rpartition("/")[0]):
            raise _error(errno.ENOENT, path)
        if self._is_folder(path):
            raise _error(errno.EISDIR, path)
        self.files[path] = b"".join(parts)
        self.changed[path] = time.time_ns()

    def delete(self, path: str) -> None:
        for each in [path, *self._below(path)]:
            self.files.pop(each, None)
            self.folders.discard(each)

    def make_folder(self, path: str) -> None:
        path = path.rstrip("/")
        if self.info(path) is not None:
            raise _error(errno.EEXIST, path)
        while path.partition("://")[2]:
            if path in self.files:
                raise _error(errno.ENOTDIR, path)
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def _is_folder(self, path: str) -> bool:
        return path in self.folders or path.endswith(":/")  # the root is always there

    def _below(self, folder: str) -> list[str]:
        return [path for path in (*self.files, *self.folders) if path.startswith(f"{folder}/")]


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
