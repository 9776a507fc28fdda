"""Writes under a lock, so that no write takes effect after another process has taken over the lock.

A request may be in transit, or be retried, for longer than another process waits for the lock. So

- an object is replaced by a conditional request: only if it is still the one that existed while the lock was held;
- a multipart upload is begun while the lock is held: a process that takes over the lock aborts it;
- a request that cannot be conditional, such as a deletion, is retried only as long as the lock is certainly held.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from model_trainer.storage import configuration
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import ChangedError, ExpiredError, StoreUnavailableError
from model_trainer.storage.objects.locks import Locks, version_in
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["Fence", "LateUploadError"]

T = TypeVar("T")

RETRY_SECONDS = 5.0  # of retries by obstore, unaware of the lock: less than from LEASE_SECONDS to STALE_SECONDS
PAUSE_SECONDS = 0.2
ATTEMPTS = 8  # at replacing an object that changes meanwhile


class LateUploadError(Exception):
    """An upload was begun so late that another process may have taken over the lock before."""


class Fence:
    """Writes objects that locks of this process guard; unguarded objects are written without conditions."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._short_retry_stores: dict[str, Any] = {}

    def check(self, url: ObjectUrl) -> None:
        """Checks that no lock that guards an object was lost; raises LostLockError."""
        self._locks.check(url)

    def check_upload_started(self, url: ObjectUrl) -> None:
        """Checks, without a request, that an upload was begun while the lock was held; raises LateUploadError."""
        if not all(lock.is_current for lock in self._locks.guarding(url)):
            raise LateUploadError

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
            mode = version()  # before `call` checks the lock: so no other process has written this version
            try:
                return self.call(bucket, url, partial(_put, url.key, content, mode))
            except (ChangedError, FileExistsError, FileNotFoundError):
                if attempt == ATTEMPTS - 1:
                    raise
                for lock in self._locks.guarding(url):
                    lock.renew()  # raises if another process wrote it; else it was this one, and the response was lost
        raise AssertionError

    def call(self, bucket: Bucket, url: ObjectUrl, request: Callable[[Any], T]) -> T:
        """Calls `request`, which writes, with the store of obstore, and returns its result; raises as `put`."""
        if not self._locks.guarding(url):
            return bucket.call(url, lambda: request(bucket.store))
        store = self._short_retry_store(bucket, url)
        ends = time.monotonic() + configuration.current().retry_seconds
        while True:
            self.check(url)
            try:
                return bucket.call(url, lambda: request(store))
            except ExpiredError:
                raise
            except StoreUnavailableError:
                if time.monotonic() >= ends:
                    raise
                time.sleep(PAUSE_SECONDS)

    def _short_retry_store(self, bucket: Bucket, url: ObjectUrl) -> Any:
        """The store of a bucket with requests that are retried for a few seconds only."""
        if url.root not in self._short_retry_stores:
            store = bucket.store
            seconds = min(RETRY_SECONDS, configuration.current().retry_seconds)
            retries = {**store.retry_config, "retry_timeout": timedelta(seconds=seconds)}
            signed = {} if store.credential_provider is None else {"credential_provider": store.credential_provider}
            self._short_retry_stores[url.root] = type(store)(
                config=store.config, client_options=store.client_options, retry_config=retries, **signed
            )
        return self._short_retry_stores[url.root]


def _put(key: str, content: bytes, mode: Any, store: Any) -> Any:
    import obstore

    return obstore.put(store, key, content, mode=mode, use_multipart=False)
