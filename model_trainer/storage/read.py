"""Reading an image's file, and only a file that can be one: a device or a pipe would never end."""

from __future__ import annotations

import os
import stat

__all__ = ["MAX_FILE_BYTES", "read_image_file", "why_not_read"]

# The largest image that Pillow takes would have as many bytes without any compression.
MAX_FILE_BYTES = 2**29


def read_image_file(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it is missing, no regular file, larger than `MAX_FILE_BYTES`, or cannot be read.
    """
    # Not blocking, because opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise OSError(0, f"it has more than the limit of {MAX_FILE_BYTES:,} bytes")
        return file.read()


def why_not_read(error: OSError, *, if_missing: str) -> str:
    """What to say of an image whose file gave `error`, such as "could not be opened (Permission denied)"."""
    if isinstance(error, FileNotFoundError):
        return if_missing
    return f"could not be opened ({error.strerror or error})"
