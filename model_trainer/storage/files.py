"""Files by their paths, wherever they are: what the rest of the package reads and writes with.

A path is text or an `os.PathLike`, a `RemotePath` where it has a scheme. Each function asks the storage of the path;
all raise OSError, as `Storage` says, but for those that say StorageError.

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
from model_trainer.storage.paths import RemotePath, StrPath, as_path
from model_trainer.storage.storage import Appender, Entry, Info, Storage
from model_trainer.storage.tensorflow_files import TensorFlowFiles
from model_trainer.storage.trouble import is_full, not_written

__all__ = [
    "RemotePath",
    "StrPath",
    "append",
    "append_text",
    "as_path",
    "atomic_write",
    "check_room",
    "clear_leftovers",
    "complete_folders",
    "copy",
    "delete",
    "delete_folder",
    "exists",
    "info",
    "is_file",
    "is_folder",
    "is_local_folder",
    "local_copy",
    "lock",
    "make_folder",
    "matching",
    "mount",
    "names_in",
    "open_file",
    "open_text",
    "read",
    "read_range",
    "read_text",
    "real_path",
    "scan",
    "storage_of",
    "write",
    "write_folder",
    "write_text",
]  # fmt: skip

_LOCAL, _TENSORFLOW = LocalDisk(), TensorFlowFiles()
_MOUNTED: dict[str, Storage] = {}


def mount(scheme: str, storage: Storage) -> None:
    """From now on paths that begin with `scheme://` are of `storage`; a scheme is letters, digits, ".", "+" and "-"."""
    if not re.fullmatch(r"[A-Za-z][\w.+-]*", scheme):
        raise ValueError(f"{scheme!r} cannot be the scheme of a path.")
    _MOUNTED[scheme] = storage


def storage_of(path: StrPath) -> Storage:
    """Where a path leads."""
    scheme, separator, _ = os.fspath(path).partition("://")
    return _MOUNTED.get(scheme, _TENSORFLOW) if separator else _LOCAL


def info(path: StrPath) -> Info | None:
    """What is there, behind links; None where nothing is."""
    return storage_of(path).info(os.fspath(path))


def exists(path: StrPath) -> bool:
    """Whether something is there; not where that may not be known."""
    with contextlib.suppress(OSError):
        return info(path) is not None
    return False


def is_file(path: StrPath) -> bool:
    """Whether a file is there that can be read to its end."""
    with contextlib.suppress(OSError):
        found = info(path)
        return found is not None and not found.is_folder and found.is_regular
    return False


def is_folder(path: StrPath) -> bool:
    """Whether a folder is there."""
    with contextlib.suppress(OSError):
        found = info(path)
        return found is not None and found.is_folder
    return False


def is_local_folder(path: StrPath) -> bool:
    """Whether a folder is there on the local disk; asks no other storage, which may take long to answer."""
    return "://" not in os.fspath(path) and is_folder(path)


def scan(folder: StrPath) -> list[Entry]:
    """What stands in a folder itself, in no order."""
    return storage_of(folder).scan(os.fspath(folder))


def names_in(folder: StrPath) -> list[str]:
    """The names in a folder, sorted; none where there is no folder, or one that may not be read."""
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in scan(folder))
    return []


def matching(pattern: StrPath) -> list[str]:
    """The paths that match a pattern, sorted; `*`, `?` and `[abc]` stand for parts of a name, never for a "/"."""
    return storage_of(pattern).matching(os.fspath(pattern))


def open_file(path: StrPath) -> BinaryIO:
    """The file for reading bytes, from any place in it."""
    return storage_of(path).open(os.fspath(path))


def open_text(path: StrPath, encoding: str = "utf-8", errors: str = "strict", newline: str | None = None) -> TextIO:
    """The file for reading text."""
    return io.TextIOWrapper(open_file(path), encoding, errors, newline)


def read(path: StrPath) -> bytes:
    """The content of a file."""
    return storage_of(path).read(os.fspath(path))


def read_range(path: StrPath, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on; OSError where it ends before."""
    return storage_of(path).read_range(os.fspath(path), start, size)


def read_text(path: StrPath, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The content of a text file, its lines ended by "\\n"."""
    with open_text(path, encoding, errors) as file:
        return file.read()


def write(path: StrPath, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Writes a file, whole or not at all, in the place of an older one.

    Args:
        content: all of it, or its parts one after the other.

    Raises:
        StorageError: it cannot be written; says why.
    """
    with _told(path):
        storage_of(path).write(os.fspath(path), [content] if isinstance(content, bytes) else content)


def write_text(path: StrPath, text: str) -> None:
    """As `write`, of text in UTF-8."""
    write(path, text.encode())


def append(path: StrPath) -> Appender:
    """The end of a file, which is made where there is none."""
    return storage_of(path).append(os.fspath(path))


def append_text(path: StrPath, text: str) -> None:
    """Adds text in UTF-8 to a file, whole or not at all. Names of files that are no UTF-8 are written as they are."""
    with contextlib.closing(append(path)) as end:
        end.write(text.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def atomic_write(path: StrPath) -> Iterator[Path]:
    """A place on the local disk for a file, which becomes `path` at the end of the block, or nothing does.

    For libraries that write by themselves. Its name has the suffix of `path`.

    Raises:
        StorageError: the file cannot be written; names it.
    """
    with _told(path), storage_of(path).atomic_write(os.fspath(path)) as partial:
        yield partial


@contextlib.contextmanager
def local_copy(path: StrPath) -> Iterator[Path]:
    """The file on the local disk inside the block, for libraries that read by themselves."""
    with storage_of(path).local_copy(os.fspath(path)) as local:
        yield local


def delete(path: StrPath) -> None:
    """Removes a file; one that is not there is no error."""
    storage_of(path).delete(os.fspath(path))


def delete_folder(path: StrPath) -> None:
    """Removes a folder with all that is in it; one that is not there is no error."""
    storage_of(path).delete_folder(os.fspath(path))


def make_folder(path: StrPath, *, new: bool = False, parents: bool = True) -> None:
    """Makes a folder and those above it.

    Args:
        new: raises FileExistsError where it is there already.
        parents: False raises FileNotFoundError where the folder above is not there, such as on a disk that has gone.
    """
    above = as_path(path).parent
    if not parents and not is_folder(above):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(above))
    try:
        storage_of(path).make_folder(os.fspath(path))
    except FileExistsError:
        if new or not is_folder(path):
            raise


def copy(source: StrPath, target: StrPath) -> None:
    """Gives a file a second name in the place of `target`, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with _told(target):
        if storage_of(source) is storage_of(target):
            storage_of(target).copy(os.fspath(source), os.fspath(target))
        else:
            storage_of(target).write(os.fspath(target), [read(source)])


def write_folder(folder: StrPath, contents: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
    """Writes a folder of files that is seen all or not at all, in the place of an older one."""
    storage_of(folder).write_folder(os.fspath(folder), contents)


def complete_folders(parent: PurePath, prefix: str) -> dict[str, PurePath]:
    """By name the paths of what `write_folder` wrote in `parent` under names that begin with `prefix`."""
    found = storage_of(parent).complete_folders(os.fspath(parent), prefix)
    return {name: as_path(path) for name, path in found.items()}


def clear_leftovers(parent: StrPath) -> None:
    """Removes what a process left in `parent` that was killed inside `write_folder`."""
    storage_of(parent).clear_leftovers(os.fspath(parent))


def lock(folder: StrPath) -> contextlib.AbstractContextManager[None]:
    """Holds a folder for this process inside the block; BlockingIOError where another one holds it."""
    return storage_of(folder).lock(os.fspath(folder))


def check_room(path: StrPath, num_bytes: int) -> None:
    """Asks for room for a new file, and gives it back. For libraries that leave a mess when a write fails inside them.

    Raises:
        StorageError: there is too little room.
    """
    try:
        storage_of(path).check_room(os.fspath(path), num_bytes)
    except OSError as error:
        if is_full(error):
            raise not_written(path, error, num_bytes) from error


def real_path(path: StrPath) -> str:
    """The path without links."""
    return storage_of(path).real_path(os.fspath(path))


@contextlib.contextmanager
def _told(path: StrPath) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise not_written(path, error) from error
