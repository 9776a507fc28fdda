"""The interface of a storage: implemented by the local disk and by object stores."""

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
    """Metadata of a file or folder.

    Attributes:
        is_folder: whether it is a folder.
        size: in bytes; meaningless for a folder.
        changed_ns: modification time, in nanoseconds since 1970; 0 if the storage does not provide it.
        is_regular: False for a device or a pipe, which might never end.
    """

    is_folder: bool
    size: int
    changed_ns: int
    is_regular: bool = True


class Entry(Protocol):
    """An entry of a folder; `os.DirEntry` is one."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    def is_dir(self, *, follow_symlinks: bool = True) -> bool: ...
    def is_symlink(self) -> bool: ...


@dataclass(frozen=True)
class Item:
    """An entry in a storage without links."""

    name: str
    path: str
    is_folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self.is_folder

    def is_symlink(self) -> bool:
        return False


class Appender(Protocol):
    """A file that is open for appending."""

    def write(self, data: bytes) -> None:
        """Appends `data`, all of it or nothing; raises OSError if that fails."""

    def close(self) -> None: ...


class Storage(ABC):
    """Base class of storages: files by path, such as "output/cats/history.csv" or "memory://output/history.csv".

    Paths are passed as written, with their scheme. Every method raises OSError: FileNotFoundError, PermissionError, or
    one whose `errno` and `strerror` give the reason, such as a full disk.

    An object store has no folders of its own: a file may be written where there is no folder, and a folder vanishes
    with its last file, unless `make_folder` created it. A store that refuses all requests, or does not answer, is a
    StorageError, never a missing file.

    The first group of methods is required. The second group covers what a disk provides and an object store does not:
    renaming, appending, locks, links. Its defaults are implemented with the first group, and may be overridden.
    """

    # Required.

    @abstractmethod
    def info(self, path: str) -> Info | None:
        """Metadata of a file or folder, following links; None if there is none."""

    @abstractmethod
    def scan(self, folder: str) -> list[Entry]:
        """The entries of a folder, not recursive, in no particular order."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading, with random access."""

    @abstractmethod
    def write(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Writes a file in an existing folder (an object store needs none) atomically, replacing an existing one.

        After it returns, the file survives a power failure.

        Args:
            path: of the file.
            chunks: its content.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Deletes a file; a missing one is not an error."""

    @abstractmethod
    def delete_folder(self, path: str) -> None:
        """Deletes a folder recursively; a missing one is not an error."""

    @abstractmethod
    def make_folder(self, path: str) -> None:
        """Creates a folder and its parents.

        Raises:
            FileExistsError: the path exists; if several processes create it at once, only one gets no error.
        """

    def read(self, path: str) -> bytes:
        """Reads a file."""
        with self.open(path) as file:
            return file.read()

    def read_range(self, path: str, start: int, size: int) -> bytes:
        """Reads `size` bytes of a file from offset `start`; raises OSError if the file is shorter."""
        with self.open(path) as file:
            file.seek(start)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"ends before byte {start + size}")
        return data

    def matching(self, pattern: str) -> list[str]:
        """The paths that match a pattern, sorted; `*`, `?` and `[abc]` match within a name, never a "/"."""
        scheme, separator, rest = pattern.partition("://")
        matches = [f"{scheme}{separator}"]
        for name in filter(None, rest.split("/")):
            folders = [folder if folder.endswith("/") else f"{folder}/" for folder in matches]
            if not re.search(r"[*?[]", name):
                matches = [path for path in (f"{folder}{name}" for folder in folders) if self.info(path) is not None]
                continue
            regex = re.compile(fnmatch.translate(name.replace("[^", "[!")))
            inside = [folder for folder in folders if (info := self.info(folder)) is not None and info.is_folder]
            matches = [
                f"{folder}{each.name}" for folder in inside for each in self.scan(folder) if regex.match(each.name)
            ]
        return sorted(matches)

    # Optional: what a disk does by renaming, appending, locking or linking.

    def append(self, path: str) -> Appender:
        """Opens a file for appending, for one writer at a time; creates it if it does not exist.

        By default each write rewrites the whole file.
        """
        return _Rewriter(self, path)

    def copy(self, source: str, target: str) -> None:
        """Copies a file within this storage atomically, replacing `target`; may create a hard link instead."""
        self.write(target, [self.read(source)])

    def write_folder(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
        """Writes a folder of files, replacing an existing one, so that a reader sees all of them or none.

        By default the old folder is deleted first, and files are written in order: a folder without the last one counts
        as incomplete.

        Args:
            folder: path of the folder.
            files: names and chunks, consumed lazily: each file is requested after the one before is written.
        """
        self.delete_folder(folder)
        self.make_folder(folder)
        for name, chunks in files:
            self.write(f"{folder}/{name}", chunks)

    def complete_folders(self, parent: str, prefix: str) -> dict[str, str]:
        """The folders in `parent` that `write_folder` wrote and whose names start with `prefix`: paths by name."""
        if self.info(parent) is None:
            return {}
        return {each.name: each.path for each in self.scan(parent) if each.name.startswith(prefix) and each.is_dir()}

    def clear_leftovers(self, parent: str) -> None:  # noqa: B027
        """Deletes the temporary files of a process that was killed inside `write_folder`; by default there are none."""

    def lock(self, folder: str, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Locks a folder for this process inside the `with` block, or until the process ends; by default does nothing.

        A shared lock only excludes an exclusive one; it serves to find out whether another process holds that.

        Raises:
            BlockingIOError: another process holds the lock.
        """
        return contextlib.nullcontext()

    def check_lock(self, path: str) -> None:  # noqa: B027
        """Raises OSError if this process has lost a lock that guards `path`; by default does nothing."""

    def check_room(self, path: str, num_bytes: int) -> None:  # noqa: B027
        """Raises OSError if there is no space for a new file of that size; by default does nothing."""

    def real_path(self, path: str) -> str:
        """The path with all links resolved."""
        return path

    # For libraries that read and write files themselves.

    @contextlib.contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """Yields a local path of the file inside the `with` block; by default of a temporary copy."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePath(path).name
            local.write_bytes(self.read(path))
            yield local

    @contextlib.contextmanager
    def atomic_write(self, path: str) -> Iterator[Path]:
        """Yields a local path for a temporary file, which replaces `path` if the `with` block succeeds.

        The temporary file has the suffix of `path`, because writers such as Keras choose the format by it.
        """
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePath(path).name
            yield local
            self.write(path, [local.read_bytes()])


class _Rewriter:
    """Appends by rewriting the whole file."""

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
