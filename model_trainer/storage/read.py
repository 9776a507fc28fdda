"""Reads image files, but no devices or pipes, which might never end."""

from __future__ import annotations

import os
import stat

from model_trainer.storage import files

__all__ = ["MAX_FILE_BYTES", "TENSORFLOW_SCHEMES", "read_image_file", "size_of", "why_not_read"]

TENSORFLOW_SCHEMES = ("file", "gs", "ram")  # tf.io.gfile.get_registered_schemes()

# The size of the largest image that Pillow accepts, uncompressed.
MAX_FILE_BYTES = 2**29


def read_image_file(path: str) -> bytes:
    """Reads the bytes of a file.

    Raises:
        OSError: it is missing, not a regular file, larger than `MAX_FILE_BYTES`, or cannot be read.
    """
    if "://" in path:
        return files.read(path)
    # Non-blocking, because opening a pipe would wait for its writer.
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(0, f"it has more than the limit of {MAX_FILE_BYTES:,} bytes")
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_of(path: str) -> int:
    """The size of a file in bytes; -1 if it is missing, 0 if it is remote, because that would take a request."""
    if "://" in path:
        return 0
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def why_not_read(error: OSError, *, if_missing: str) -> str:
    """The reason, for messages, why an image file raised `error`: "could not be opened (Permission denied)"."""
    if isinstance(error, FileNotFoundError):
        return if_missing
    return f"could not be opened ({error.strerror or error})"
