"""Threads that copy files: they wait for the store most of the time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Workers"]

MAX_WAITING = 100_000  # files that are listed but not copied yet: a folder with millions takes little memory
TICK_SECONDS = 0.2
LEAVE_SECONDS = 10.0


class Workers:
    """Runs functions, which must not raise, in `count` threads; another one calls `tick` every `TICK_SECONDS`.

    Attributes:
        stop: set when no more functions are to be started.
    """

    def __init__(self, count: int, tick: Callable[[], None]) -> None:
        self.stop = threading.Event()
        self._tick = tick
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)  # for the threads
        self._progressed = threading.Condition(self._lock)  # for whoever submits and waits
        self._waiting: deque[Callable[[], None]] = deque()
        self._urgent: deque[Callable[[], None]] = deque()
        self._unfinished = 0
        self._closed = False
        # Daemons, so that a store that does not answer cannot keep the process alive.
        self._threads = [threading.Thread(target=self._work, name="sync", daemon=True) for _ in range(count)]
        # Also while the caller lists a folder, or waits for a store that does not answer.
        self._threads.append(threading.Thread(target=self._tick_until_ended, name="sync-progress", daemon=True))
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Adds a function; waits while `MAX_WAITING` functions have not been started."""
        while True:
            with self._lock:
                if self.stop.is_set():
                    return
                if len(self._waiting) < MAX_WAITING:
                    self._waiting.append(job)
                    self._unfinished += 1
                    self._ready.notify()
                    return
                self._progressed.wait(TICK_SECONDS)

    def assist(self, count: int, job: Callable[[], None]) -> None:
        """Adds a function `count` times before all others; to be called by a function that is running."""
        with self._lock:
            for _ in range(count):
                self._urgent.append(job)
                self._unfinished += 1
            self._ready.notify(count)

    def wait(self) -> None:
        """Returns when every function has ended, or those that were running when `stop` was set."""
        while True:
            with self._lock:
                if not self._unfinished:
                    return
                self._progressed.wait(TICK_SECONDS)

    def close(self) -> bool:
        """Starts no more functions; returns whether all that were running have ended within some seconds."""
        with self._lock:
            self._closed = True
            self._ready.notify_all()
        self._ended.set()
        deadline = time.monotonic() + LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _tick_until_ended(self) -> None:
        with contextlib.suppress(OSError):  # the terminal or pipe to which `tick` prints is closed
            while not self._ended.wait(TICK_SECONDS):
                self._tick()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._urgent and not self._waiting:
                    if self._closed:
                        return
                    self._ready.wait()
                job = (self._urgent or self._waiting).popleft()
            try:
                if not self.stop.is_set():
                    job()
            finally:
                with self._lock:
                    self._unfinished -= 1
                    if not self._unfinished or len(self._waiting) == MAX_WAITING - 1:
                        self._progressed.notify_all()
