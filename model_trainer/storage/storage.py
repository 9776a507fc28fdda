"""What a place for files has to offer: a local disk does, and an object store can."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple, Protocol

__all__ = ["Appender", "Entry", "Info", "Item", "Storage"]


class Info(NamedTuple):
    """What is known of a file or folder without reading it.

    Attributes:
        is_folder: whether it is one.
        size: in bytes; of a folder it means nothing.
        changed_ns: when it was changed last, in nanoseconds since 1970; 0 where the store does not tell.
        is_regular: whether it can be read to an end, which a device or a pipe cannot.
    """

    is_folder: bool
    size: int
    changed_ns: int
    is_regular: bool = True


class Entry(Protocol):
    """What stands in a folder; `os.DirEntry` is one."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    def is_dir(self, *, follow_symlinks: bool = True) -> bool: ...
    def is_symlink(self) -> bool: ...


@dataclass(frozen=True)
class Item:
    """An entry of a store that has no links."""

    name: str
    path: str
    is_folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self.is_folder

    def is_symlink(self) -> bool:
        return False


class Appender(Protocol):
    """The end of a file that grows."""

    def write(self, data: bytes) -> None:
        """Adds `data`, whole or not at all; OSError where it cannot."""

    def close(self) -> None: ...


class Storage(ABC):
    """Files by their paths, such as "output/cats/history.csv" or "memory://output/history.csv".

    A path is given as it is written, with its scheme. Every method raises OSError: FileNotFoundError, PermissionError,
    or one whose `errno` and `strerror` say why, such as that of a full disk.

    The first group of methods is all that a store must have. The second needs what a disk has and an object store has
    not: renaming, appending, locks, links. Their defaults do it in another way; a store may know a better one.
    """

    # Every store.

    @abstractmethod
    def info(self, path: str) -> Info | None:
        """What is there, behind links; None where nothing is."""

    @abstractmethod
    def scan(self, folder: str) -> list[Entry]:
        """What stands in a folder itself, in no order."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """The file for reading, from any place in it."""

    @abstractmethod
    def write(self, path: str, parts: Iterable[bytes | memoryview]) -> None:
        """Writes a file in an existing folder, whole or not at all, in the place of an older one.

        When it returns, the file survives a power cut.

        Args:
            parts: one after the other.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Removes a file; one that is not there is no error."""

    @abstractmethod
    def delete_folder(self, path: str) -> None:
        """Removes a folder with all that is in it; one that is not there is no error."""

    @abstractmethod
    def make_folder(self, path: str) -> None:
        """Makes a folder and those above it.

        Raises:
            FileExistsError: something of that name is there; of several processes that make one, one does not get it.
        """

    def read(self, path: str) -> bytes:
        """The content of a file."""
        with self.open(path) as file:
            return file.read()

    def read_range(self, path: str, start: int, size: int) -> bytes:
        """`size` bytes of a file from `start` on; OSError where it ends before."""
        with self.open(path) as file:
            file.seek(start)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"ends before byte {start + size}")
        return data

    def matching(self, pattern: str) -> list[str]:
        """The paths that match a pattern, sorted; `*`, `?` and `[abc]` stand for parts of a name, never for a "/"."""
        scheme, separator, rest = pattern.partition("://")
        found = [f"{scheme}{separator}"]
        for name in filter(None, rest.split("/")):
            folders = [folder if folder.endswith("/") else f"{folder}/" for folder in found]
            if not re.search(r"[*?[]", name):
                found = [path for path in (f"{folder}{name}" for folder in folders) if self.info(path) is not None]
                continue
            wanted = re.compile(fnmatch.translate(name.replace("[^", "[!")))
            inside = [folder for folder in folders if (there := self.info(folder)) is not None and there.is_folder]
            found = [
                f"{folder}{each.name}" for folder in inside for each in self.scan(folder) if wanted.match(each.name)
            ]
        return sorted(found)

    # What a disk does by renaming, appending, locking or linking.

    def append(self, path: str) -> Appender:
        """The end of a file, which is made where there is none; for one writer at a time.

        By default each write writes the file anew.
        """
        return _Rewriter(self, path)

    def copy(self, source: str, target: str) -> None:
        """Gives a file of this store a second name in the place of `target`, whole or not at all; by default a copy."""
        self.write(target, [self.read(source)])

    def write_folder(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
        """Writes a folder of files, in the place of an older one, so that who reads it sees all or nothing.

        By default the last file is written last, and the older one's removed first: a folder without it is none.

        Args:
            files: names with their parts; each is asked for when the one before is written.
        """
        self.delete_folder(folder)
        self.make_folder(folder)
        for name, parts in files:
            self.write(f"{folder}/{name}", parts)

    def complete_folders(self, parent: str, prefix: str) -> dict[str, str]:
        """By name the paths of what `write_folder` wrote in `parent` under names that begin with `prefix`."""
        if self.info(parent) is None:
            return {}
        return {each.name: each.path for each in self.scan(parent) if each.name.startswith(prefix) and each.is_dir()}

    def clear_leftovers(self, parent: str) -> None:  # noqa: B027
        """Removes what a process left in `parent` that was killed inside `write_folder`; by default nothing can be."""

    def lock(self, folder: str) -> contextlib.AbstractContextManager[None]:
        """Holds a folder for this process inside the block; ended processes hold nothing. By default nothing is held.

        Raises:
            BlockingIOError: another process holds it.
        """
        return contextlib.nullcontext()

    def check_room(self, path: str, num_bytes: int) -> None:  # noqa: B027
        """Raises OSError where a new file of that size would not fit; by default there is always room."""

    def real_path(self, path: str) -> str:
        """The path without links."""
        return path

    # For libraries that read and write files by themselves.

    @contextlib.contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """The file on the local disk inside the block; a disk gives it as it is."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePath(path).name
            local.write_bytes(self.read(path))
            yield local

    @contextlib.contextmanager
    def atomic_write(self, path: str) -> Iterator[Path]:
        """A place on the local disk for a file, which becomes `path` at the end of the block, or nothing does.

        Its name has the suffix of `path`, because writers such as Keras choose the format by it.
        """
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePath(path).name
            yield local
            self.write(path, [local.read_bytes()])


class _Rewriter:
    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._content = io.BytesIO()
        if storage.info(path) is not None:
            self._content.write(storage.read(path))
        else:
            storage.write(path, [])

    def write(self, data: bytes) -> None:
        start = self._content.tell()
        self._content.write(data)
        try:
            self._storage.write(self._path, [self._content.getvalue()])
        except OSError:
            self._content.seek(start)
            self._content.truncate()
            raise

    def close(self) -> None:
        pass
