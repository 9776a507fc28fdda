"""Runs an iterator in another thread, ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["read_ahead"]

AHEAD = 2
POLL_SECONDS = 0.2

_Item = TypeVar("_Item")


def read_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yields the same items in the same order; an error of `items` is raised after the items before it.

    For an upload whose content comes from a store: obstore cannot be called by an iterator that it runs itself.
    """
    ready: queue.Queue[tuple[_Item | None, BaseException | None]] = queue.Queue(AHEAD)
    is_abandoned = threading.Event()

    def put(item: _Item | None, error: BaseException | None) -> None:
        while not is_abandoned.is_set():
            try:
                ready.put((item, error), timeout=POLL_SECONDS)
                return
            except queue.Full:
                continue

    def take() -> None:
        try:
            for item in items:
                put(item, None)
                if is_abandoned.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:  # noqa: BLE001 - raised in the other thread
            put(None, error)

    threading.Thread(target=take, name="read-ahead", daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        is_abandoned.set()
