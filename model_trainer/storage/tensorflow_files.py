"""Read-only access to the file systems that TensorFlow supports, such as ram://."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from model_trainer.storage.storage import Entry, Info, Storage

__all__ = ["TensorFlowFiles"]


@dataclass(frozen=True)
class _Item:
    name: str
    path: str

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        import tensorflow as tf

        return bool(tf.io.gfile.isdir(self.path))

    def is_symlink(self) -> bool:
        return False


class TensorFlowFiles(Storage):
    """A read-only storage on top of `tf.io.gfile`."""

    def info(self, path: str) -> Info | None:
        import tensorflow as tf

        with _as_os_errors():
            try:
                status = tf.io.gfile.stat(path)
            except tf.errors.NotFoundError:
                return None
            return Info(status.is_directory, status.length, status.mtime_nsec)

    def scan(self, folder: str) -> list[Entry]:
        import tensorflow as tf

        with _as_os_errors():
            names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
        return [_Item(name, f"{folder.rstrip('/')}/{name}") for name in names]

    def open(self, path: str) -> BinaryIO:
        import tensorflow as tf

        if self.info(path) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return io.BufferedReader(_Raw(tf.io.gfile.GFile(path, "rb")))

    def read(self, path: str) -> bytes:
        import tensorflow as tf

        with _as_os_errors(), tf.io.gfile.GFile(path, "rb") as file:
            data: bytes = file.read()
        return data

    def read_range(self, path: str, start: int, size: int) -> bytes:
        import tensorflow as tf

        with _as_os_errors(), tf.io.gfile.GFile(path, "rb") as file:
            file.seek(start)
            data: bytes = file.read(size)
        if len(data) != size:
            raise OSError(f"ends before byte {start + size}")
        return data

    def matching(self, pattern: str) -> list[str]:
        import tensorflow as tf

        with _as_os_errors():
            return sorted(tf.io.gfile.glob(pattern))

    def write(self, path: str, chunks: Iterable[bytes | memoryview]) -> None:
        raise _read_only(path)

    def delete(self, path: str) -> None:
        raise _read_only(path)

    def delete_folder(self, path: str) -> None:
        raise _read_only(path)

    def make_folder(self, path: str) -> None:
        raise _read_only(path)


class _Raw(io.RawIOBase):
    """Adapts a TensorFlow file to Python's `io`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        with _as_os_errors():
            self._file.seek(offset, whence)
            return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with _as_os_errors():
            data: bytes = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, error.message) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message) from error


def _read_only(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)
