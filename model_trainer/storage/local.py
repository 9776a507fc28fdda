"""Files on a local disk: written whole or not at all, also when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from absl import logging

from model_trainer.errors import StorageError

__all__ = [
    "LineFile", "check_room", "is_full", "make_run_dir", "not_written", "only_process",
    "sync_folder", "write_text", "written_whole"
]  # fmt: skip

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path beside `path` to write to; what was written there becomes `path` at the end, or nothing does.

    The temporary name keeps the suffix, because writers such as Keras choose the format by it.

    Raises:
        StorageError: the file cannot be written; names it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        try:
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):  # would hide why it could not be written
                partial.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise not_written(path, error) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


class LineFile:
    """A file that grows by whole lines; what cannot be written is left out, and said once in the log.

    For files without which a program can go on. Each write is tried anew, so the file goes on when there is room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._is_told = False
        self.write("")  # makes the file

    def write(self, text: str) -> None:
        """Appends `text`, which ends in a line break, whole or not at all."""
        try:
            if self._file is None:
                # Without a buffer, whose rest would fail once more when it is closed.
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
            _append_whole(self._file, text.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            if self._is_told:
                return
            self._is_told = True
            logging.warning("%s What comes meanwhile will be missing from it.", not_written(self._path, error))

    def close(self) -> None:
        """Ends it; safe at any time."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def make_run_dir(output_dir: str | os.PathLike[str], name: str) -> Path:
    """Makes `output_dir/name`, or `name-2`, `name-3`, ... when that folder is there already.

    Raises:
        StorageError: the folder cannot be made; says why.
    """
    parent = Path(output_dir)
    suffix = 1
    while True:
        folder = parent / (name if suffix == 1 else f"{name}-{suffix}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if parent.exists() and not parent.is_dir():
                raise StorageError(f"{parent} is a file; `output_dir` should be a folder.") from None
            suffix += 1
        except OSError as error:
            raise StorageError(
                f"The output folder {folder} could not be made: {error.strerror}. "
                "Choose another: --set output_dir=/some/folder"
            ) from error


def check_room(path: Path, num_bytes: int) -> None:
    """Asks the file system for room for a new file `path`, and gives it back.

    For libraries that leave a mess when a write fails inside them.

    Raises:
        StorageError: there is too little room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    probe = path.with_name(f".room.partial-{os.getpid()}")
    try:
        with open(probe, "wb") as file:
            # Not shutil.disk_usage, which knows nothing of a user's quota.
            os.posix_fallocate(file.fileno(), 0, max(1, num_bytes))
    except OSError as error:
        if is_full(error):
            probe.unlink(missing_ok=True)
            raise not_written(path, error, num_bytes) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether `error` says that the disk, or the user's share of it, is full."""
    return _errno_of(error) in _FULL


def not_written(path: str | os.PathLike[str], error: BaseException, num_bytes: int | None = None) -> StorageError:
    """The error that `path` could not be written; of a full disk it says how much is free.

    Args:
        error: why: an OSError, or what a library made of one.
        num_bytes: how large the file would be, where that is known.
    """
    number = _errno_of(error)
    reason = os.strerror(number) if number else str(error)
    text = f"{os.fspath(path)} could not be written: {reason}"
    if number == errno.ENOSPC:  # under a quota more may be free than may be used
        needed = "" if num_bytes is None else f"{_size(num_bytes)} are needed, "
        text += f"; {needed}{_free(Path(path))} are free"
    told = StorageError(f"{text}.")
    told.errno = number
    return told


@contextlib.contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process inside the block; the system lets go of it when the process ends in any way.

    Raises:
        StorageError: another process holds it.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"Another process is training in {folder.parent}. Wait for it, or stop it; then go on with --resume."
            ) from None
        except OSError:  # a file system without locks
            logging.debug("%s cannot be locked.", folder)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes new names in `folder` survive a power cut."""
    # Without it a power cut may forget the new name although the content is on the disk.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append_whole(file: BinaryIO, data: bytes) -> None:
    start = os.fstat(file.fileno()).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), start)
        raise


def _errno_of(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and "errno" in str(error):  # HDF5 tells it inside a text
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else None
    return number


def _free(path: Path) -> str:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return _size(shutil.disk_usage(folder).free)
    return "few bytes"


def _size(num_bytes: float) -> str:
    """Such as "812 bytes", "1.5 MB" or "240 MB"."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while num_bytes >= 1000 and len(units) > 1:
        num_bytes /= 1000
        del units[0]
    return f"{num_bytes:.1f} {units[0]}" if num_bytes < 10 and units[0] != "bytes" else f"{num_bytes:.0f} {units[0]}"
