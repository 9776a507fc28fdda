"""Writes below a lock, none of which takes effect after another process has taken the lock over.

A request may be on its way, or be repeated, for longer than another process waits for the lock. So

- an object is replaced on condition that it is still the one that was there while the lock was held;
- an upload in parts is begun while the lock is held: whoever takes over the lock aborts it;
- what has no conditions, such as deleting, is repeated only as long as the lock is certainly held.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from model_trainer.storage import configuration
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import ChangedError, ExpiredError, UnavailableError
from model_trainer.storage.objects.locks import Locks, version_in
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["Fence", "LateError"]

T = TypeVar("T")

REPEAT_SECONDS = 5.0  # by obstore, which does not know the lock: less than from the lease to taking over
PAUSE_SECONDS = 0.2
ATTEMPTS = 8  # to replace an object that changes meanwhile


class LateError(Exception):
    """An upload was begun so late that another process may have taken over the lock before."""


class Fence:
    """Writes objects that locks of this process guard; those that none guards as usual."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._hurried: dict[str, Any] = {}

    def check(self, url: ObjectUrl) -> None:
        """Checks that no lock that guards an object was lost; raises LostLockError."""
        self._locks.check(url)

    def check_begun(self, url: ObjectUrl) -> None:
        """Checks, without a request, that an upload was begun while the lock was held; raises LateError."""
        if not all(lock.is_current for lock in self._locks.guarding(url)):
            raise LateError

    def put(self, bucket: Bucket, url: ObjectUrl, content: bytes) -> Any:
        """Writes an object, and returns the result of obstore.

        Raises:
            LostLockError: another process has taken over the lock.
            OSError: it could not be written.
        """
        import obstore

        if not self._locks.guarding(url):
            return bucket.call(url, lambda: obstore.put(bucket.store, url.key, content, use_multipart=False))

        def version() -> Any:
            try:
                return version_in(bucket.head(url)) or "overwrite"
            except FileNotFoundError:
                return "create"

        for attempt in range(ATTEMPTS):
            mode = version()  # before the lock is checked: it is not that of another process
            try:
                return self.call(bucket, url, partial(_put, url.key, content, mode))
            except (ChangedError, FileExistsError, FileNotFoundError):
                if attempt == ATTEMPTS - 1:
                    raise
                for lock in self._locks.guarding(url):
                    lock.renew()  # it was another process, or this one, but the answer was lost
        raise AssertionError

    def call(self, bucket: Bucket, url: ObjectUrl, request: Callable[[Any], T]) -> T:
        """The result of a request that writes, given the store of obstore; raises as `put`."""
        if not self._locks.guarding(url):
            return bucket.call(url, lambda: request(bucket.store))
        store = self._hurried_store(bucket, url)
        ends = time.monotonic() + configuration.current().retry_seconds
        while True:
            self.check(url)
            try:
                return bucket.call(url, lambda: request(store))
            except ExpiredError:
                raise
            except UnavailableError:
                if time.monotonic() >= ends:
                    raise
                time.sleep(PAUSE_SECONDS)

    def _hurried_store(self, bucket: Bucket, url: ObjectUrl) -> Any:
        """The store of a bucket that repeats requests for a few seconds only."""
        if url.root not in self._hurried:
            store = bucket.store
            seconds = min(REPEAT_SECONDS, configuration.current().retry_seconds)
            retries = {**store.retry_config, "retry_timeout": timedelta(seconds=seconds)}
            signed = {} if store.credential_provider is None else {"credential_provider": store.credential_provider}
            self._hurried[url.root] = type(store)(
                config=store.config, client_options=store.client_options, retry_config=retries, **signed
            )
        return self._hurried[url.root]


def _put(key: str, content: bytes, mode: Any, store: Any) -> Any:
    import obstore

    return obstore.put(store, key, content, mode=mode, use_multipart=False)
