"""What a batcher works on: the images of a request, and batches of images of several requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from model_trainer.serving.answers import BadImage

__all__ = ["Batch", "Compute", "ConcurrentCompute", "Decoded", "Encoded", "Job", "Row", "deliver"]

Row = np.ndarray | BadImage
Compute = Callable[[np.ndarray], np.ndarray]


class Job:
    """The images of one request.

    Attributes:
        rows: for each image its probabilities, or why it cannot be read.
        queue_seconds: the longest time from the start of the job to the start of a batch.
        compute_seconds: the time of the slowest batch.
    """

    __slots__ = (
        "compute_seconds", "error", "future", "is_abandoned", "num_missing", "queue_seconds", "rows", "start_time",
    )  # fmt: skip

    def __init__(self, num_images: int, future: asyncio.Future[None]) -> None:
        self.rows: list[Row | None] = [None] * num_images
        self.num_missing = num_images
        self.future = future
        self.error: Exception | None = None
        self.is_abandoned = False
        self.start_time = time.monotonic()
        self.queue_seconds = 0.0
        self.compute_seconds = 0.0


Encoded = tuple[Job, int, bytes]
Decoded = tuple[Job, int, np.ndarray]


class Batch(NamedTuple):
    """The images of a batch, and the function that computes them."""

    images: list[Decoded]
    compute: Compute
    start_time: float


class ConcurrentCompute(NamedTuple):
    """Computes several batches at the same time.

    Attributes:
        compute: as the `compute` of a `Batcher`, on one core.
        alone: the same for a single image, on all cores.
        batch_size: the batch size with about the least time per image.
        num_batches: the number of batches at a time.
    """

    compute: Compute
    alone: Compute
    batch_size: int
    num_batches: int


def deliver(jobs: list[Job]) -> None:
    """Gives jobs their results; wakes the event loop once for all of them."""
    if not jobs:
        return
    try:
        jobs[0].future.get_loop().call_soon_threadsafe(_set_results, jobs)
    except RuntimeError:  # the loop has been closed; no client waits
        return


def _set_results(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(None)
