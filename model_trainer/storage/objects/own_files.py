"""The folders of the cache: a file marks each, and only entries with the cache's own names are deleted.

The folder of the cache is configurable, so that it may by mistake be one with files of the user, such as `.git`.

Source: https://bford.info/cachedir/
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "UNFINISHED", "OwnFolder", "delete", "folder_of_indexes", "folder_of_listings", "folder_of_objects",
    "is_left_behind", "open_own",
]  # fmt: skip

UNFINISHED = "unfinished-"  # prefix of the names of files and folders that are being written

_MARK = "CACHEDIR.TAG"
_MARK_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# The cache of model-trainer, which may delete all files here; `model-trainer cache` shows them.\n"
)
_UNFINISHED_SECONDS = 3600.0  # after which such a file is considered left by a process that was killed

_HASH = re.compile(r"[0-9a-f]{40}")
_HASH_START = re.compile(r"[0-9a-f]{2}")
_INDEX = re.compile(r"[0-9a-f]{40}\.npz|\.[0-9a-f]{40}\.partial-\d+\.npz")

Entry = os.DirEntry[str]


@dataclass(frozen=True)
class OwnFolder:
    """A folder of the cache.

    Attributes:
        path: may be missing, and may be deleted at any time.
        is_own: whether an entry of the folder is one that the cache makes.
        is_own_inside: the same for the entries inside those, which are then folders; None if there are no such levels.
    """

    path: Path
    is_own: Callable[[Entry], bool]
    is_own_inside: Callable[[Entry], bool] | None = None

    def why_not_usable(self) -> str:
        """Creates and marks the folder if need be; returns the reason if that cannot be done, otherwise ""."""
        try:
            if self._is_marked():
                return ""
            os.makedirs(self.path, exist_ok=True)
            if not self._has_only_own():
                return "it contains other files, which are not those of a cache"
            (self.path / _MARK).write_bytes(_MARK_TEXT)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def entries(self) -> Iterator[Entry]:
        """The entries of the cache; none in a folder that is not one of the cache. Links are not followed."""
        # A folder of the cache without a mark is from an earlier version, or was deleted and recreated meanwhile.
        if not self._is_marked() and not self._has_only_own():
            return
        for entry in filter(self.is_own, _scan(self.path)):
            yield from [entry] if self.is_own_inside is None else filter(self.is_own_inside, _scan(entry.path))

    def clear(self) -> None:
        """Deletes the entries of the cache, and the folder if nothing else is in it."""
        for entry in list(self.entries()):
            delete(entry)
        if not self._is_marked() and not self._has_only_own():
            return
        with contextlib.suppress(OSError):
            for entry in filter(self.is_own, _scan(self.path)):
                os.rmdir(entry.path)
            if [entry.name for entry in _scan(self.path)] == [_MARK]:
                os.unlink(self.path / _MARK)
            os.rmdir(self.path)

    def _is_marked(self) -> bool:
        return self._mark() == _MARK_TEXT

    def _mark(self) -> bytes | None:
        with contextlib.suppress(OSError), open_own(self.path / _MARK) as file:
            return file.read()
        return None

    def _has_only_own(self) -> bool:
        """Whether the folder contains nothing but entries of the cache; an empty one does."""
        for entry in _scan(self.path):
            if entry.name == _MARK:
                mark = self._mark()
                if mark is None or not _MARK_TEXT.startswith(mark):  # incomplete while another process writes it
                    return False
                continue
            inside = () if self.is_own_inside is None else map(self.is_own_inside, _scan(entry.path))
            if not self.is_own(entry) or not all(inside):
                return False
        return True


def folder_of_objects(cache: str | Path) -> OwnFolder:
    """Folders named by the first digits of hashes, with a file for each object."""
    return OwnFolder(
        Path(cache) / "objects",
        lambda entry: _HASH_START.fullmatch(entry.name) is not None and entry.is_dir(follow_symlinks=False),
        lambda entry: _is_hash(entry.name) and entry.is_file(follow_symlinks=False),
    )


def folder_of_listings(cache: str | Path) -> OwnFolder:
    """A folder with a folder for each listing."""
    return OwnFolder(
        Path(cache) / "listings", lambda entry: _is_hash(entry.name) and entry.is_dir(follow_symlinks=False)
    )


def folder_of_indexes(cache: str | Path) -> OwnFolder:
    """A folder with a file for each indexed TFRecord file."""
    return OwnFolder(
        Path(cache) / "index",
        lambda entry: _INDEX.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False),
    )


def _is_hash(name: str) -> bool:
    return name.startswith(UNFINISHED) or _HASH.fullmatch(name) is not None


def is_left_behind(entry: Entry, changed: float) -> bool:
    """Whether a killed process has left a file unfinished; `changed` is its modification time in seconds."""
    return entry.name.startswith(UNFINISHED) and time.time() - changed > _UNFINISHED_SECONDS


def delete(entry: Entry) -> None:
    """Deletes a file or a folder; another process may have done so already."""
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        os.unlink(entry.path)


def open_own(path: str | Path) -> BinaryIO:
    """Opens a file for reading; raises OSError for links, pipes and folders, which the cache does not make."""
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "it is not a regular file", os.fspath(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def _scan(folder: str | Path) -> list[Entry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
