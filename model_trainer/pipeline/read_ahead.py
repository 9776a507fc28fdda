"""Reads images from a store before the pipeline needs them: many requests at once hide how long each one takes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from model_trainer.errors import StorageError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Images

__all__ = ["ANNOUNCED_TOGETHER", "ReadAhead", "num_ahead"]

ANNOUNCED_TOGETHER = 16
NUM_THREADS = 64  # a request takes 10 to 100 ms, whatever the bandwidth

_MAX_AHEAD = 1024
_MIN_AHEAD = 64
_MAX_BYTES = 256 << 20  # of the images that are held at the same time, on average
_UNKNOWN_BYTES = 1 << 19  # for images whose size is not known


def num_ahead(examples: Examples) -> int:
    """The number of images to read ahead: the larger they are on average, the fewer."""
    sizes = examples.num_bytes
    known_sizes = sizes[sizes > 0]
    mean = float(known_sizes.mean()) if len(known_sizes) else _UNKNOWN_BYTES
    return int(np.clip(_MAX_BYTES / mean, _MIN_AHEAD, _MAX_AHEAD))


@dataclass
class _Waiting:
    future: Future[bytes]
    times: int = 1  # how often it will still be read


class ReadAhead:
    """Reads announced images in threads, and holds them until they are fetched.

    Args:
        images: the store of the images.
        max_images: number of images that are read ahead. An abandoned iterator leaves some behind; beyond twice this
            number, and those being read, the oldest ones are dropped.
    """

    def __init__(self, images: Images, max_images: int) -> None:
        self._images = images
        self._max_images = 2 * max_images + NUM_THREADS
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(NUM_THREADS, "read-ahead")
        self.failure: StorageError | None = None

    def announce(self, rows: np.ndarray) -> None:
        """Starts to read images that will be fetched soon, unless they are in the cache."""
        wanted = [row for row in rows.tolist() if not self._images.is_cached(row)]
        with self._lock:
            for row in wanted:
                waiting = self._waiting.get(row)
                if waiting is None:
                    self._waiting[row] = _Waiting(self._threads.submit(self._load, row))
                else:
                    waiting.times += 1
            while len(self._waiting) > self._max_images:
                self._waiting.popitem(last=False)[1].future.cancel()

    def read(self, row: int) -> bytes:
        """Returns an encoded image, whether it was announced or not.

        Raises:
            StorageError: the store refuses every request, or does not answer; every later read raises the same.
            OSError: it cannot be read.
        """
        with self._lock:
            waiting = self._waiting.get(row)
            if waiting is not None:
                waiting.times -= 1
                if not waiting.times:
                    del self._waiting[row]
        # A read that has not started would wait for those before it, some of which may no longer be needed.
        if waiting is None or (not waiting.times and waiting.future.cancel()):
            return self._load(row)
        return waiting.future.result()

    def _load(self, row: int) -> bytes:
        if self.failure is not None:
            raise self.failure
        try:
            return self._images.read(row)
        except StorageError as error:
            self.failure = error
            raise
