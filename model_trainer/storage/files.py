"""Reads and writes files by path, on the local disk and in mounted storages; used by the rest of the package.

A path is a string or an `os.PathLike`; with a scheme it is a `RemotePath`. Each function calls the storage of the path.
All raise OSError, as `Storage` documents, except those that document StorageError.

Example:
    >>> from model_trainer.storage import files
    >>> files.write_text("note.txt", "hello")
    >>> files.read_text("note.txt")
    'hello'
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO, TextIO

from model_trainer.errors import StorageError
from model_trainer.storage.local import LocalDisk
from model_trainer.storage.objects.urls import SCHEMES
from model_trainer.storage.paths import RemotePath, StrPath, as_path
from model_trainer.storage.storage import Appender, Entry, Info, Storage
from model_trainer.storage.tensorflow_files import TensorFlowFiles
from model_trainer.storage.write_errors import is_full, not_written

__all__ = [
    "RemotePath", "StrPath", "append", "append_text", "as_path", "atomic_write", "check_lock", "check_room",
    "clear_leftovers", "complete_folders", "copy", "delete", "delete_folder", "exists", "info", "is_file",
    "is_folder", "is_local_folder", "local_copy", "lock", "make_folder", "matching", "mount", "names_in", "open_file",
    "open_text", "read", "read_range", "read_text", "real_path", "scan", "storage_of", "write", "write_folder",
    "write_text",
]  # fmt: skip

_LOCAL, _TENSORFLOW = LocalDisk(), TensorFlowFiles()
_MOUNTED: dict[str, Storage] = {}


def mount(scheme: str, storage: Storage) -> None:
    """Registers `storage` for paths that start with `scheme://`; a scheme is letters, digits, ".", "+" and "-"."""
    if not re.fullmatch(r"[A-Za-z][\w.+-]*", scheme):
        raise ValueError(f"{scheme!r} cannot be the scheme of a path.")
    _MOUNTED[scheme] = storage


def storage_of(path: StrPath) -> Storage:
    """The storage of a path."""
    scheme, separator, _ = os.fspath(path).partition("://")
    if not separator:
        return _LOCAL
    if scheme in SCHEMES and scheme not in _MOUNTED:
        from model_trainer.storage.objects.store import ObjectStore  # imported late: many runs do not need it

        mount(scheme, ObjectStore())
    return _MOUNTED.get(scheme, _TENSORFLOW)


def info(path: StrPath) -> Info | None:
    """Information on a file or folder, following links; None if there is none."""
    return storage_of(path).info(os.fspath(path))


def exists(path: StrPath) -> bool:
    """Whether a file or folder exists; False also if it cannot be accessed.

    Raises:
        StorageError: its object store refuses every request, or does not answer.
    """
    return _accessible(path) is not None


def is_file(path: StrPath) -> bool:
    """Whether `path` is a regular file, which can be read to its end; raises StorageError as `exists`."""
    entry = _accessible(path)
    return entry is not None and not entry.is_folder and entry.is_regular


def is_folder(path: StrPath) -> bool:
    """Whether `path` is a folder; raises StorageError as `exists`."""
    entry = _accessible(path)
    return entry is not None and entry.is_folder


def _accessible(path: StrPath) -> Info | None:
    try:
        return info(path)
    except StorageError:
        raise
    except OSError:
        return None


def is_local_folder(path: StrPath) -> bool:
    """Whether `path` is a folder on the local disk; queries no remote storage, which might be slow."""
    return "://" not in os.fspath(path) and is_folder(path)


def scan(folder: StrPath) -> list[Entry]:
    """The entries of a folder, not recursive, in no particular order."""
    return storage_of(folder).scan(os.fspath(folder))


def names_in(folder: StrPath) -> list[str]:
    """The names in a folder, sorted; empty if there is no folder, or if it cannot be read.

    Raises:
        StorageError: as `exists`.
    """
    try:
        return sorted(entry.name for entry in scan(folder))
    except StorageError:
        raise
    except OSError:
        return []


def matching(pattern: StrPath) -> list[str]:
    """The paths that match a pattern, sorted; `*`, `?` and `[abc]` match within a name, never a "/"."""
    return storage_of(pattern).matching(os.fspath(pattern))


def open_file(path: StrPath) -> BinaryIO:
    """Opens a file for reading bytes, with random access."""
    return storage_of(path).open(os.fspath(path))


def open_text(path: StrPath, encoding: str = "utf-8", errors: str = "strict", newline: str | None = None) -> TextIO:
    """Opens a file for reading text."""
    return io.TextIOWrapper(open_file(path), encoding, errors, newline)


def read(path: StrPath) -> bytes:
    """Reads a file."""
    return storage_of(path).read(os.fspath(path))


def read_range(path: StrPath, start: int, size: int) -> bytes:
    """Reads `size` bytes of a file from offset `start`; raises OSError if the file is shorter."""
    return storage_of(path).read_range(os.fspath(path), start, size)


def read_text(path: StrPath, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Reads a text file; line ends become "\\n"."""
    with open_text(path, encoding, errors) as file:
        return file.read()


def write(path: StrPath, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Writes a file atomically, replacing an existing one.

    Args:
        path: of the file, in an existing folder.
        content: the bytes, or chunks of them.

    Raises:
        StorageError: the file cannot be written; the message gives the reason.
    """
    with _storage_errors(path):
        storage_of(path).write(os.fspath(path), [content] if isinstance(content, bytes) else content)


def write_text(path: StrPath, text: str) -> None:
    """Writes a UTF-8 text file atomically, as `write`."""
    write(path, text.encode())


def append(path: StrPath) -> Appender:
    """Opens a file for appending; creates it if it does not exist."""
    return storage_of(path).append(os.fspath(path))


def append_text(path: StrPath, text: str) -> None:
    """Appends UTF-8 text to a file, all of it or nothing; surrogate escapes of file names become their bytes."""
    with contextlib.closing(append(path)) as appender:
        appender.write(text.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def atomic_write(path: StrPath) -> Iterator[Path]:
    """Yields a local path for a temporary file, which replaces `path` at the end of the `with` block if it succeeds.

    For libraries that write files themselves. The temporary file has the suffix of `path`.

    Raises:
        StorageError: the file cannot be written; the message names it.
    """
    with _storage_errors(path), storage_of(path).atomic_write(os.fspath(path)) as partial:
        yield partial


@contextlib.contextmanager
def local_copy(path: StrPath) -> Iterator[Path]:
    """Yields a local path of the file inside the `with` block, for libraries that read files themselves."""
    with storage_of(path).local_copy(os.fspath(path)) as local:
        yield local


def delete(path: StrPath) -> None:
    """Deletes a file; a missing one is not an error."""
    storage_of(path).delete(os.fspath(path))


def delete_folder(path: StrPath) -> None:
    """Deletes a folder recursively; a missing one is not an error."""
    storage_of(path).delete_folder(os.fspath(path))


def make_folder(path: StrPath, *, new: bool = False, parents: bool = True) -> None:
    """Creates a folder and its parents.

    Args:
        path: of the folder.
        new: raise FileExistsError if the folder exists already.
        parents: False raises FileNotFoundError if the parent is missing, such as on an unmounted disk.
    """
    parent = as_path(path).parent
    if not parents and not is_folder(parent):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(parent))
    try:
        storage_of(path).make_folder(os.fspath(path))
    except FileExistsError:
        if new or not is_folder(path):
            raise


def copy(source: StrPath, target: StrPath) -> None:
    """Copies a file atomically, replacing `target`; on the local disk as a hard link, if possible.

    Raises:
        StorageError: `target` cannot be written.
    """
    with _storage_errors(target):
        if storage_of(source) is storage_of(target):
            storage_of(target).copy(os.fspath(source), os.fspath(target))
        else:
            storage_of(target).write(os.fspath(target), [read(source)])


def write_folder(folder: StrPath, contents: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
    """Writes a folder of files atomically, replacing an existing one; `contents` yields `(file name, chunks)`."""
    storage_of(folder).write_folder(os.fspath(folder), contents)


def complete_folders(parent: PurePath, prefix: str) -> dict[str, PurePath]:
    """The folders in `parent` that `write_folder` completed and whose names start with `prefix`: paths by name."""
    folders = storage_of(parent).complete_folders(os.fspath(parent), prefix)
    return {name: as_path(path) for name, path in folders.items()}


def clear_leftovers(parent: StrPath) -> None:
    """Deletes the temporary files in `parent` of a process that was killed inside `write_folder`."""
    storage_of(parent).clear_leftovers(os.fspath(parent))


def lock(folder: StrPath, shared: bool = False) -> contextlib.AbstractContextManager[None]:
    """Locks a folder for this process inside the `with` block; raises BlockingIOError if another process holds it."""
    return storage_of(folder).lock(os.fspath(folder), shared)


def check_lock(path: StrPath) -> None:
    """Checks, without a request, that this process has not lost its lock on the folder of a run.

    Raises:
        StorageError: another process has taken over the run, and this one should stop.
    """
    storage_of(path).check_lock(os.fspath(path))


def check_room(path: StrPath, num_bytes: int) -> None:
    """Checks that there is enough disk space for a new file, for libraries that do not handle a failed write well.

    Raises:
        StorageError: there is too little space.
    """
    try:
        storage_of(path).check_room(os.fspath(path), num_bytes)
    except OSError as error:
        if is_full(error):
            raise not_written(path, error, num_bytes) from error


def real_path(path: StrPath) -> str:
    """The path with all links resolved."""
    return storage_of(path).real_path(os.fspath(path))


@contextlib.contextmanager
def _storage_errors(path: StrPath) -> Iterator[None]:
    """Converts OSError to StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise not_written(path, error) from error
