"""Reading an image's file, and only a file that can be one: a device or a pipe would never end."""

from __future__ import annotations

import os
import stat

from model_trainer.storage import files

__all__ = ["MAX_FILE_BYTES", "TENSORFLOW_SCHEMES", "read_image_file", "size_of", "why_not_read"]

TENSORFLOW_SCHEMES = ("file", "gs", "ram")  # tf.io.gfile.get_registered_schemes()

# The largest image that Pillow takes would have as many bytes without any compression.
MAX_FILE_BYTES = 2**29


def read_image_file(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it is missing, no regular file, larger than `MAX_FILE_BYTES`, or cannot be read.
    """
    if "://" in path:
        return files.read(path)
    # Not blocking, because opening a pipe would wait for its writer.
    with open(path, "rb", opener=_open_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise OSError(0, f"it has more than the limit of {MAX_FILE_BYTES:,} bytes")
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_of(path: str) -> int:
    """The size of a file in bytes; -1 where it is not there, 0 of a remote one, which would have to be asked for."""
    if "://" in path:
        return 0
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def why_not_read(error: OSError, *, if_missing: str) -> str:
    """What to say of an image whose file gave `error`, such as "could not be opened (Permission denied)"."""
    if isinstance(error, FileNotFoundError):
        return if_missing
    return f"could not be opened ({error.strerror or error})"
