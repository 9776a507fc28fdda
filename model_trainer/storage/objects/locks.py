"""Locks of folders in an object store, by conditional writes: an object that its owner renews while it lives.

The owner rewrites the lock every few seconds, on condition that it is still its own. One that has not been renewed for
`STALE_SECONDS`, by the clock of the store, was left by a process that was killed, and may be taken over.
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
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["LOCK", "LostLockError", "lock_folder"]

LOCK = ".lock"
RENEW_SECONDS = 10.0
STALE_SECONDS = 45.0
POLL_SECONDS = 2.0


class LostLockError(StoreError):
    """Another process has taken over the folder, because this one did not renew its lock in time."""


@dataclass
class _Lock:
    """The lock of this process on a folder."""

    bucket: Bucket
    url: ObjectUrl
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    tag: str | None = None
    lost: bool = False
    released: threading.Event = field(default_factory=threading.Event)

    def take(self) -> None:
        """Takes the lock; waits for one that may have been left by a killed process.

        Raises:
            BlockingIOError: another process holds it and renews it.
        """
        first: dict[str, Any] | None = None
        deadline = time.monotonic() + STALE_SECONDS
        while True:
            try:
                self.tag = self._put(mode="create")
                return
            except FileExistsError:
                held = _holder(self.bucket, self.url)
            if held is None:
                continue
            if first is None:
                first = held
            elif held["tag"] != first["tag"]:
                raise _held(self.url, held)
            if _is_left(held) or time.monotonic() >= deadline:
                try:
                    self.tag = self._put(mode={"e_tag": held["tag"]})
                    return
                except (ChangedError, FileNotFoundError):
                    continue
            if time.monotonic() >= deadline - STALE_SECONDS and held is first:
                logging.info("Waiting until %s is free; %s may have ended.", _name(self.url), _process(held))
            time.sleep(POLL_SECONDS)

    def renew(self) -> None:
        """Renews the lock until it is released."""
        while not self.released.wait(RENEW_SECONDS):
            try:
                self.tag = self._put(mode={"e_tag": self.tag})
            except (ChangedError, FileNotFoundError):
                self.lost = True
                logging.error("%s has been taken over by another process.", _name(self.url))
                return
            except OSError as error:
                logging.warning("The lock of %s could not be renewed: %s.", _name(self.url), error.strerror)

    def release(self) -> None:
        import obstore

        if self.lost:
            return
        held = _holder(self.bucket, self.url)
        if held is not None and held["token"] == self.token:
            with contextlib.suppress(OSError), self.bucket.errors(self.url):
                obstore.delete(self.bucket.store, f"{self.url.key}/{LOCK}")

    def _put(self, mode: Any) -> str | None:
        import obstore

        content = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed": uuid.uuid4().hex,  # so that each renewal has another ETag
        }
        with self.bucket.errors(self.url):
            data = json.dumps(content).encode()
            tag = obstore.put(self.bucket.store, f"{self.url.key}/{LOCK}", data, mode=mode)["e_tag"]
        return None if tag is None else str(tag)


@contextlib.contextmanager
def lock_folder(bucket: Bucket, url: ObjectUrl, shared: bool) -> Iterator[None]:
    """Locks a folder inside the `with` block; `shared` only checks that no other process holds it.

    Raises:
        BlockingIOError: another process holds the lock.
        StorageError: at the end of the block, if another process has taken over the folder meanwhile.
    """
    if shared:
        held = _holder(bucket, url)
        if held is not None and not _is_left(held):
            raise _held(url, held)
        yield
        return
    lock = _Lock(bucket, url)
    lock.take()
    renewing = threading.Thread(target=lock.renew, name="lock", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        lock.released.set()
        renewing.join()
        with contextlib.suppress(StorageError):
            lock.release()
    if lock.lost:
        raise LostLockError(errno.ESTALE, "another process has taken over this run", _name(url))


def _holder(bucket: Bucket, url: ObjectUrl) -> dict[str, Any] | None:
    """Who holds the lock of a folder: token, host and pid, and the ETag and time of its last renewal."""
    import obstore

    try:
        with bucket.errors(url):
            result = obstore.get(bucket.store, f"{url.key}/{LOCK}")
            content, meta = bytes(result.bytes()), result.meta
    except FileNotFoundError:
        return None
    try:
        held = dict(json.loads(content))
    except ValueError:
        held = {}
    return {"token": "", "host": "", "pid": 0, **held, "tag": meta["e_tag"], "time": meta["last_modified"]}


def _is_left(held: dict[str, Any]) -> bool:
    """Whether the holder has certainly ended: a process of this machine that is gone, or no renewal for long."""
    if held["host"] == socket.gethostname() and isinstance(held["pid"], int) and held["pid"] > 0:
        try:
            os.kill(held["pid"], 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    # This machine's clock may differ from that of the store by minutes, so only hours decide at once.
    age = datetime.now(held["time"].tzinfo) - held["time"]
    return bool(age.total_seconds() > 3600)


def _held(url: ObjectUrl, held: dict[str, Any]) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, f"{_process(held)} writes to it", _name(url))


def _process(held: dict[str, Any]) -> str:
    return f"process {held['pid']} of {held['host'] or 'another machine'}"


def _name(url: ObjectUrl) -> str:
    return f"{url.root}/{url.key}"
