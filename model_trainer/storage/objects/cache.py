"""Objects on the local disk: a cache of limited size, which processes share and which survives a crash.

An entry is one file, named by the hash of the object's URL and its ETag, so that it never becomes outdated. It is
written under another name first, and ends with its checksum, so that an incomplete file is never read as an object.
Processes need not coordinate: each one evicts the least recently used entries when it finds the cache full, except
those that it has used itself. So a training run that reads more than fits caches some of its images, instead of
replacing all of them in every epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import numpy as np
from absl import logging

from model_trainer.storage.objects.own_files import UNFINISHED, OwnFolder, is_left_behind, open_own

__all__ = ["ObjectCache"]

_END = struct.Struct("<4sIQ")  # mark, CRC-32 and size of the content
_MARK = b"MTc1"
_USED_SECONDS = 600.0  # resolution of the time of last use
_FREE_BYTES = 1 << 30  # that are left free on the disk, for the outputs of runs
_COUNT_AGAIN_SECONDS = 600.0  # while the cache is full of entries that this process has used
_WAIT_SECONDS = 1.0
_COUNT_AFTER = 0.1  # of the maximum size has been written by this process
_USED_AFTER_EVICTION = 0.9  # of the maximum size

_numbers = itertools.count()


class ObjectCache:
    """Caches the contents of objects in a folder.

    Args:
        folder: of the cache, see `folder_of_objects`.
        max_bytes: of all entries together; 0 caches nothing.
    """

    def __init__(self, folder: OwnFolder, max_bytes: int) -> None:
        self._own = folder
        self.folder = folder.path
        self.max_bytes = max_bytes
        self._started = time.time()
        self._num_bytes: int | None = None  # at the last count, plus what this process has written since then
        self._num_written = 0  # bytes that this process has written since the last count
        self._counted_at = 0.0
        self._lock = threading.Lock()
        self._is_searching = False  # the folder, which may take seconds
        self._is_off = max_bytes <= 0
        self._has_logged_full = False

    def get(self, key: str) -> bytes | None:
        """The content of an entry; None if there is none, or a damaged one."""
        path = self._path(key)
        try:
            with open_own(path) as file:
                used_at = os.fstat(file.fileno()).st_mtime
                data = file.read()
        except OSError as error:
            if not isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):  # a link or a pipe
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return None
        content = memoryview(data)[: -_END.size]
        if len(data) < _END.size or _END.unpack_from(data, len(content)) != (_MARK, zlib.crc32(content), len(content)):
            with contextlib.suppress(OSError):
                os.unlink(path)
            return None
        if used_at < self._started or time.time() - used_at > _USED_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(path)
        return bytes(content)

    def __contains__(self, key: str) -> bool:
        with contextlib.suppress(OSError):
            return stat.S_ISREG(os.lstat(self._path(key)).st_mode)
        return False

    def put(self, key: str, content: bytes) -> None:
        """Adds an entry if there is room; a disk that cannot be written is logged once, and not tried again."""
        if self._is_off or not self._has_room(len(content) + _END.size):
            return
        path = self._path(key)
        parent = os.path.dirname(path)
        if os.path.islink(parent):
            return
        partial = f"{parent}/{UNFINISHED}{os.getpid()}-{next(_numbers)}"
        try:
            try:
                self._write(partial, content)
            except FileNotFoundError:
                os.makedirs(parent, exist_ok=True)
                self._write(partial, content)
            with contextlib.suppress(IsADirectoryError):  # a folder of that name, which is not from the cache
                os.replace(partial, path)
                return
            os.unlink(partial)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            self._turn_off(error.strerror or str(error))

    def _write(self, partial: str, content: bytes) -> None:
        with open(partial, "wb", buffering=0) as file:
            data = memoryview(content + _END.pack(_MARK, zlib.crc32(content), len(content)))
            while data:
                data = data[file.write(data) :]

    def usage(self) -> tuple[int, int]:
        """`(count, bytes)` of the entries."""
        sizes = [size for _, size, _ in self._entries()]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Deletes all entries."""
        self._own.clear()
        self._num_bytes = None

    def _path(self, key: str) -> str:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{self.folder}/{name[:2]}/{name[2:42]}"

    def _turn_off(self, reason: str) -> None:
        if not self._is_off:
            self._is_off = True
            logging.warning(
                "Objects are no longer cached in %s: %s. They are downloaded each time.", self.folder, reason
            )

    def _has_room(self, num_bytes: int) -> bool:
        """Whether an entry of that size fits; evicts other entries if need be."""
        # Training does not wait while another thread searches the folder; the object is then not cached.
        if self._is_searching:
            return False
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            return False
        try:
            # Other processes write too: without counting theirs, four of them would use four times the maximum.
            if self._num_bytes is None or self._num_written > self.max_bytes * _COUNT_AFTER:
                with self._searching():
                    self._count()
            if self._is_off or num_bytes > self.max_bytes:
                return False
            assert self._num_bytes is not None
            if self._num_bytes + num_bytes > self.max_bytes:
                if time.monotonic() - self._counted_at < _COUNT_AGAIN_SECONDS and self._has_logged_full:
                    return False
                with self._searching():
                    self._evict(num_bytes)
            if self._num_bytes + num_bytes > self.max_bytes:
                return False
            self._num_bytes += num_bytes
            self._num_written += num_bytes
            return True
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _searching(self) -> Iterator[None]:
        self._is_searching = self._num_bytes is not None  # other threads wait for the first search, which may be short
        try:
            yield
        finally:
            self._is_searching = False

    def _count(self) -> None:
        reason = self._own.why_not_usable()
        if reason:
            self._turn_off(reason)
        self._num_written = 0
        self._num_bytes = sum(size for _, size, _ in self._entries())
        self._counted_at = time.monotonic()
        folder = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        free = shutil.disk_usage(folder).free - _FREE_BYTES
        if self._num_bytes + free < self.max_bytes:
            self.max_bytes = max(0, self._num_bytes + free)
            logging.info("The disk of %s has little room: it takes %d MB.", self.folder, self.max_bytes // 1_000_000)

    def _evict(self, num_bytes: int) -> None:
        """Deletes the least recently used entries, except those that this process has used."""
        # Two passes over the folder, so that no names are held in memory: a cache may have millions of entries.
        entries = np.array([(used, size) for used, size, _ in self._entries()], np.float64).reshape(-1, 2)
        target = min(self.max_bytes * _USED_AFTER_EVICTION, self.max_bytes - num_bytes)
        excess = float(entries[:, 1].sum()) - target
        entries = entries[entries[:, 0] < self._started]
        entries = entries[np.argsort(entries[:, 0])]
        count = int(np.searchsorted(np.cumsum(entries[:, 1]), excess)) + 1
        latest = entries[:count, 0].max(initial=-1.0)
        for used, size, path in self._entries():
            if used <= latest and excess > 0:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    excess -= size
        self._num_bytes = int(target + excess)
        self._counted_at = time.monotonic()
        if excess > 0 and not self._has_logged_full:
            self._has_logged_full = True
            logging.info(
                "%s is full of images of this run (%d MB); the others are downloaded in every epoch. "
                "A larger cache would hold all of them.", self.folder, self.max_bytes // 1_000_000,
            )  # fmt: skip

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """`(time of the last use, bytes, path)` of each entry; deletes what killed processes have left."""
        for entry in self._own.entries():
            with contextlib.suppress(OSError):  # another process has deleted it
                status = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(UNFINISHED):
                    yield status.st_mtime, status.st_size, entry.path
                elif is_left_behind(entry, status.st_mtime):
                    os.unlink(entry.path)
