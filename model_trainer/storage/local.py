"""The local disk as a storage. Writes are atomic, even if the disk is full or the power fails."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from absl import logging

from model_trainer.storage.mapped import map_file
from model_trainer.storage.storage import Appender, Entry, Info, Storage

__all__ = ["LocalDisk"]

_PARTIAL, _REPLACED = ".partial-", ".replaced-"


class LocalDisk(Storage):
    """Files on this machine and on file systems mounted on it."""

    def info(self, path: str) -> Info | None:
        try:
            status = os.stat(path or ".")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:  # such as a name with a NUL in it, or one that no file system can have
            return None
        return Info(stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime_ns, stat.S_ISREG(status.st_mode))

    def scan(self, folder: str) -> list[Entry]:
        with os.scandir(folder or ".") as entries:
            return list(entries)

    def matching(self, pattern: str) -> list[str]:
        paths = sorted(glob.glob(pattern.replace("[^", "[!"), include_hidden=True))
        # Named as by TensorFlow, which earlier versions used: the data fingerprints of runs depend on the names.
        return [f"./{path}" for path in paths] if glob.has_magic(pattern.partition("/")[0]) else paths

    def open(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def read_range(self, path: str, start: int, size: int) -> bytes:
        data = map_file(path)[start : start + size]
        if len(data) != size:
            raise OSError(f"ends before byte {start + size}")
        return data

    def write(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        with self.atomic_write(path) as partial, open(partial, "wb") as file:
            file.writelines(chunks)

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def delete_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def make_folder(self, path: str) -> None:
        Path(path).mkdir(parents=True)

    def append(self, path: str) -> Appender:
        return _LocalAppender(path)

    def copy(self, source: str, target: str) -> None:
        with self.atomic_write(target) as partial:
            try:
                os.link(source, partial)
            except OSError:
                shutil.copyfile(source, partial)

    def write_folder(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
        target = Path(folder)
        temporary = target.with_name(f"{_PARTIAL}{os.getpid()}-{target.name}")
        replaced = target.with_name(f"{_REPLACED}{target.name}")
        try:
            temporary.mkdir()
            for name, chunks in files:
                write_synced(temporary / name, chunks)
            sync_folder(temporary)
            if target.exists():
                os.replace(target, replaced)
            os.replace(temporary, target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(replaced, ignore_errors=True)

    def complete_folders(self, parent: str, prefix: str) -> dict[str, str]:
        # Includes a folder under its temporary name, if a process was killed while replacing it. It is renamed only
        # when the next one is written, because a reader may not hold the lock.
        folders: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for start in (f"{_REPLACED}{prefix}", prefix):
                for each in self.scan(parent):
                    if each.name.startswith(start) and each.is_dir():
                        folders[each.name.removeprefix(_REPLACED)] = each.path
        return folders

    def clear_leftovers(self, parent: str) -> None:
        for each in self.scan(parent):
            name = each.name.removeprefix(_REPLACED)
            if name != each.name and not os.path.exists(os.path.join(parent, name)):
                os.replace(each.path, os.path.join(parent, name))
            elif each.name.startswith((_REPLACED, _PARTIAL)):
                shutil.rmtree(each.path, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, folder: str, shared: bool = False) -> Iterator[None]:
        if os.name != "posix":
            yield
            return
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks
                logging.debug("%s cannot be locked.", folder)
            yield
        finally:
            os.close(descriptor)  # the operating system does the same when the process ends in any way

    def check_room(self, path: str, num_bytes: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        probe = Path(path).with_name(f".room.partial-{os.getpid()}")
        try:
            with open(probe, "wb") as file:
                # Not shutil.disk_usage, which ignores the user's quota.
                os.posix_fallocate(file.fileno(), 0, max(1, num_bytes))
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    def real_path(self, path: str) -> str:
        return os.path.realpath(path)

    @contextlib.contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        yield Path(path)

    @contextlib.contextmanager
    def atomic_write(self, path: str) -> Iterator[Path]:
        target = Path(path)
        partial = target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix}")
        try:
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, target)
            sync_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):  # would hide the reason why it could not be written
                partial.unlink(missing_ok=True)


class _LocalAppender:
    """Appends to a local file unbuffered: what a buffer could not write would fail once more on close."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        start = os.fstat(self._file.fileno()).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), start)
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def write_synced(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file and flushes it to disk, so that its content survives a power failure."""
    with open(path, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flushes the names in `folder` to disk, so that they survive a power failure."""
    # Otherwise a new name may be lost although the content is on the disk.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
