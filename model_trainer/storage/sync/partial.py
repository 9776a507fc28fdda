"""Files under a temporary name until they are complete, for one process at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from types import TracebackType

__all__ = ["PartialFile", "delete_partial_files", "is_partial"]

_NAME = re.compile(r"\.[0-9a-f]{32}\.partial")


class PartialFile:
    """A temporary file next to `path`, open and locked inside the `with` block; deleted at its end unless finished.

    Args:
        path: of the final file.
        version: identifies the content; a process that writes the same version continues the file of a killed one.

    Raises:
        OSError: it cannot be created; BlockingIOError: another process writes it.
    """

    def __init__(self, path: str, version: str = "") -> None:
        self._path = path
        # Not a longer name than that of the file, which may be as long as the system allows.
        digest = hashlib.md5(f"{os.path.basename(path)}\n{version}".encode(), usedforsecurity=False).hexdigest()
        self._partial = os.path.join(os.path.dirname(path), f".{digest}.partial")
        self._finished = False
        self.keeps = False  # whether it is left for another attempt

    def __enter__(self) -> PartialFile:
        while True:
            self.descriptor = _open(self._partial)
            try:
                lock(self.descriptor)
                if is_still(self._partial, self.descriptor):
                    return self
            except BlockingIOError:
                os.close(self.descriptor)
                raise BlockingIOError(errno.EAGAIN, "Another process is copying it", self._path) from None
            os.close(self.descriptor)  # the other process has just finished it

    def write(self, content: bytes) -> None:
        """Replaces its content."""
        os.ftruncate(self.descriptor, 0)
        self.write_at(0, content)

    def write_at(self, offset: int, content: bytes | memoryview) -> None:
        rest = memoryview(content)
        while rest:
            count = os.pwrite(self.descriptor, rest, offset)
            rest, offset = rest[count:], offset + count

    def finish(self, time_ns: int) -> None:
        """Gives the file its time and its final name."""
        os.utime(self.descriptor, ns=(time_ns, time_ns))
        os.replace(self._partial, self._path)
        self._finished = True

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished and not self.keeps:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)
        os.close(self.descriptor)


def _open(path: str) -> int:
    """Opens or creates a temporary file; replaces anything else at its path, such as a link to another file."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    while True:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if not _is_own(status):
                os.unlink(path)
                flags |= os.O_EXCL
        try:
            descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileExistsError:
            flags &= ~os.O_EXCL
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            continue
        if _is_own(os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)


def _is_own(status: os.stat_result) -> bool:
    """Whether it is a regular file without another hard link."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1  # 0: another process has just deleted it


def is_partial(name: str) -> bool:
    """Whether a file has the name of a PartialFile."""
    return _NAME.fullmatch(name) is not None


def delete_partial_files(paths: Iterable[str]) -> None:
    """Deletes temporary files, except those that a process is writing."""
    for path in paths:
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                lock(descriptor)
                os.unlink(path)
            finally:
                os.close(descriptor)


def lock(descriptor: int) -> None:
    """Locks a file until it is closed; raises BlockingIOError if another process holds the lock."""
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def is_still(path: str, descriptor: int) -> bool:
    """Whether an open file still has its name."""
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
