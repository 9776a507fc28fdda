"""Locks of folders in an object store, by conditional requests: an object that its owner renews while it runs.

The owner rewrites the lock every few seconds, on condition that it is still its own. A lock that has not been renewed
for `STALE_SECONDS` while another process watched it was left by a process that was killed, and is taken over. Should
its owner wake up again, from a suspended machine or a broken connection, it finds out before its next write, which
fails.

A run locks its `logs/`, which guards the whole folder of the run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from absl import logging

from model_trainer.errors import StorageError
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import ChangedError, StoreError
from model_trainer.storage.objects.uploads import abort_uploads
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["LOCK", "Locks", "LostLockError", "version_in"]

LOCK = ".lock"
RENEW_SECONDS = 10.0
LEASE_SECONDS = 30.0  # since the last renewal; after that it is renewed before anything is written
STALE_SECONDS = 45.0
POLL_SECONDS = 2.0
ENDED_SECONDS = 600.0  # without a renewal, by clocks that may differ: after them a shared lock ignores a lock


class LostLockError(StoreError):
    """Another process has taken over the folder, because this one could not renew its lock in time."""

    exit_code = 75


class Locks:
    """The locks of this process."""

    def __init__(self) -> None:
        self._held: list[_Lock] = []

    @contextlib.contextmanager
    def lock(self, bucket: Bucket, url: ObjectUrl, shared: bool) -> Iterator[None]:
        """Locks a folder inside the `with` block; `shared` only checks that no other process holds it.

        Raises:
            BlockingIOError: another process holds the lock.
            LostLockError: at the end of the block, if another process has taken over the folder meanwhile.
        """
        if shared:
            held = _holder(bucket, url)
            if held is not None and not _has_ended(held) and _age(held) < ENDED_SECONDS:
                raise _blocked(url, held)
            yield
            return
        lock = _Lock(bucket, url)
        lock.take()
        abort_uploads(bucket, lock.guarded)  # of the previous owner
        self._held = [*(each for each in self._held if each.url != url), lock]
        renewing = threading.Thread(target=lock.renew_until_released, name="lock", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            lock.released.set()
            renewing.join()
            with contextlib.suppress(StorageError):
                lock.release()
            if not lock.lost:  # a lost one still keeps this process from writing
                self._held = [each for each in self._held if each is not lock]
        lock.check_lost()

    def check(self, url: ObjectUrl) -> None:
        """Checks, before an object is written, that no lock that guards it was lost.

        Raises:
            LostLockError: it was.
        """
        for lock in self.guarding(url):
            lock.check()

    def check_lost(self, url: ObjectUrl) -> None:
        """As `check`, without a request."""
        for lock in self.guarding(url):
            lock.check_lost()

    def guarding(self, url: ObjectUrl) -> list[_Lock]:
        """The locks that guard an object."""
        return [lock for lock in self._held if lock.guards(url)]


@dataclass(eq=False)
class _Lock:
    """The lock of this process on a folder."""

    bucket: Bucket
    url: ObjectUrl
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: Any = None  # of the object, for conditional writes
    renewed: float = 0.0  # when the last successful renewal began
    lost: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    _renewing: threading.RLock = field(default_factory=threading.RLock)

    @property
    def guarded(self) -> ObjectUrl:
        """The folder of the run."""
        return self.url._replace(key=self.url.key.rpartition("/")[0] or self.url.key)

    def guards(self, url: ObjectUrl) -> bool:
        return url.root == self.url.root and f"{url.key}/".startswith(f"{self.guarded.key}/")

    def take(self) -> None:
        """Takes the lock; waits for one that may have been left by a killed process.

        Raises:
            BlockingIOError: another process holds it and renews it.
        """
        first: dict[str, Any] | None = None
        watched_since = 0.0
        while True:
            try:
                self._write("create")
                return
            except FileExistsError:
                held = _holder(self.bucket, self.url)
            if held is None:
                continue
            if held["token"] == self.token:  # written, but the response was lost
                self.version, self.renewed = held["version"], _now()
                return
            if first is None:
                first, watched_since = held, time.monotonic()
            elif held["version"] != first["version"]:
                raise _blocked(self.url, held)
            if _has_ended(held) or time.monotonic() - watched_since >= STALE_SECONDS:
                with contextlib.suppress(ChangedError, FileExistsError, FileNotFoundError):
                    self._write(held["version"])
                    return
                first = None
                continue
            if held is first:
                logging.info(
                    "Waiting up to %d seconds: %s, which wrote to %s, may have ended.",
                    STALE_SECONDS, _process(held), _name(self.url),
                )  # fmt: skip
            time.sleep(POLL_SECONDS)

    def renew_until_released(self) -> None:
        while not self.released.wait(RENEW_SECONDS):
            try:
                self.renew()
            except LostLockError:
                logging.error("%s has been taken over by another process.", _name(self.url))
                return
            except OSError as error:
                logging.warning("The lock of %s could not be renewed: %s.", _name(self.url), error.strerror)

    def renew(self) -> None:
        """Renews the lock.

        Raises:
            LostLockError: another process has taken it.
            OSError: the store did not answer.
        """
        with self._renewing:
            self.check_lost()
            try:
                self._write(self.version)
            except (ChangedError, FileExistsError, FileNotFoundError):
                held = _holder(self.bucket, self.url)
                # It may have been written although the response was lost.
                self.lost = held is None or held["token"] != self.token
                self.check_lost()
                assert held is not None
                self.version = held["version"]

    def check(self) -> None:
        """Checks that the lock is still held, by a request only if the last renewal was long ago."""
        self.check_lost()
        if not self.is_current:
            self.renew()

    @property
    def is_current(self) -> bool:
        """Whether no other process can have taken it over yet."""
        return not self.lost and _now() - self.renewed <= LEASE_SECONDS

    def check_lost(self) -> None:
        if self.lost:
            raise LostLockError(
                errno.ESTALE,
                "another process has taken over this run, because this one did not answer in time; nothing more is "
                "written to it",
                _name(self.url),
            )

    def release(self) -> None:
        import obstore

        with self._renewing:
            if not self.lost:
                self.renew()  # otherwise the lock of another process might be deleted
                store, key = self.bucket.store, f"{self.url.key}/{LOCK}"
                self.bucket.call(self.url, lambda: obstore.delete(store, key))

    def _write(self, mode: Any) -> None:
        import obstore

        content = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pids": _pids(),
            "renewed": uuid.uuid4().hex,  # so that each renewal has another ETag
        }
        started = _now()
        store, key, data = self.bucket.store, f"{self.url.key}/{LOCK}", json.dumps(content).encode()
        result = self.bucket.call(self.url, lambda: obstore.put(store, key, data, mode=mode, use_multipart=False))
        self.version, self.renewed = version_in(result), started


def version_in(meta: Any) -> dict[str, str] | None:
    """The version in the result of an obstore request, for a conditional write; None if the store has no versions."""
    return {name: meta[name] for name in ("e_tag", "version") if meta[name]} or None


def _holder(bucket: Bucket, url: ObjectUrl) -> dict[str, Any] | None:
    """The holder of a folder's lock: token, host and pid, and version and time of its last renewal; or None."""
    import obstore

    try:
        result = bucket.call(url, lambda: obstore.get(bucket.store, f"{url.key}/{LOCK}"))
        with bucket.errors(url):
            content, meta = bytes(result.bytes()), result.meta
    except FileNotFoundError:
        return None
    try:
        held = dict(json.loads(content))
    except ValueError:
        held = {}
    defaults = {"token": "", "host": "", "pid": 0, "pids": ""}
    return {**defaults, **held, "version": version_in(meta), "time": meta["last_modified"]}


def _has_ended(held: dict[str, Any]) -> bool:
    """Whether the holder has certainly ended: it was a process of this machine that is gone."""
    if not held["pids"] or held["pids"] != _pids() or not isinstance(held["pid"], int) or held["pid"] <= 0:
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _pids() -> str:
    """Identifies the PID namespace, in which a pid is unique, since the machine started; "" if it is unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _age(held: dict[str, Any]) -> float:
    return float((datetime.now(held["time"].tzinfo) - held["time"]).total_seconds())


def _now() -> float:
    """Seconds of a clock that continues while the machine is suspended, if there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _blocked(url: ObjectUrl, held: dict[str, Any]) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, f"{_process(held)} writes to it", _name(url))


def _process(held: dict[str, Any]) -> str:
    return f"process {held['pid']} of {held['host'] or 'another machine'}"


def _name(url: ObjectUrl) -> str:
    return f"{url.root}/{url.key}"
