"""Gathers the images of concurrent requests into batches.

A few threads share the work. Each takes the most urgent piece: a batch, unless the maximum number of batches is being
computed, or else the next image to decode. So the thread that decoded a single image computes it as well, without
handing it over, and while one thread computes a batch, the other threads decode the images of the next one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.serving.answers import BadImage, InferenceFailed, NotReady
from model_trainer.serving.jobs import Batch, Compute, ConcurrentCompute, Decoded, Encoded, Job, Row, deliver

__all__ = ["Batcher"]


class Batcher:
    """Computes images of concurrent jobs in batches.

    While a batch is computed, images gather for the next one. A batch that is not full is computed at once, unless
    other images are just being decoded: then it waits for them, up to `max_delay_seconds`.

    Args:
        decode: an encoded image to uint8 `(height, width, channels)`; raises `DataError` with the reason why it
            cannot be read. Called by several threads.
        compute: uint8 `(batch, height, width, channels)` to float32 `(batch, num_classes)`, on all cores.
        max_batch_size: maximum number of images per batch.
        max_delay_seconds: see above.
        num_decoders: images that are decoded at the same time.
        concurrent: computes several batches at once, each on one core, or an image alone; None if `compute` does all.
        on_batch: called after each batch, with its size and its seconds.
    """

    def __init__(
        self,
        decode: Callable[[bytes], np.ndarray],
        compute: Compute,
        *,
        max_batch_size: int,
        max_delay_seconds: float,
        num_decoders: int,
        concurrent: ConcurrentCompute | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._decode, self._compute, self._concurrent, self._on_batch = decode, compute, concurrent, on_batch
        self._max_batch_size, self._max_delay_seconds = max_batch_size, max_delay_seconds
        self._batch_size = min(max_batch_size, concurrent.batch_size) if concurrent else max_batch_size
        self._max_computing = concurrent.num_batches if concurrent else 1
        self._num_decoders = num_decoders
        self._encoded: deque[Encoded] = deque()
        self._decoded: deque[Decoded] = deque()
        self._num_decoding = 0
        self._start_times: dict[int, float] = {}  # of the batches being computed, by thread
        self._deadline: float | None = None  # of a batch that waits for images that are being decoded
        self._last_error = ""  # of the last batch; empty if it was computed
        self._seconds_per_image = 0.0
        self._is_closed = False
        self._work = threading.Condition(threading.Lock())
        # One more than decoders, because one thread may compute, on all cores. A batch on one core takes the thread of
        # a decoder: more threads than cores would only take turns.
        num_threads = max(num_decoders, self._max_computing) if concurrent else num_decoders + 1
        threads = [threading.Thread(target=self._run, name=f"batcher-{n}", daemon=True) for n in range(num_threads)]
        for thread in threads:
            thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether the last batch could not be computed."""
        return bool(self._last_error)

    @property
    def batch_seconds(self) -> float:
        """How long the oldest batch that is being computed has been running; 0 if there is none."""
        with self._work:
            return time.monotonic() - min(self._start_times.values()) if self._start_times else 0.0

    @property
    def seconds_per_image(self) -> float:
        """A moving average over the last batches; 0 before the first one."""
        return self._seconds_per_image

    def submit(self, images: Sequence[bytes | np.ndarray], *, is_urgent: bool = False) -> Job:
        """Starts a job and returns it; its future gets a result when `rows` is complete, or the error.

        Args:
            images: encoded images, or arrays as `decode` returns them.
            is_urgent: whether arrays are computed before all waiting images.

        Raises:
            NotReady: the batcher has been closed.
        """
        job = Job(len(images), asyncio.get_running_loop().create_future())
        encoded = [(job, index, image) for index, image in enumerate(images) if isinstance(image, bytes)]
        decoded = [(job, index, image) for index, image in enumerate(images) if not isinstance(image, bytes)]
        with self._work:
            if self._is_closed:
                raise NotReady
            self._encoded.extend(encoded)
            if is_urgent:
                self._decoded.extendleft(decoded)
            else:
                self._decoded.extend(decoded)
            self._work.notify(min(len(images), self._num_decoders))
        return job

    def abandon(self, job: Job) -> None:
        """Removes the waiting images of a job whose result is not needed any longer."""
        with self._work:
            job.is_abandoned = True
            self._encoded = deque(item for item in self._encoded if item[0] is not job)
            self._decoded = deque(item for item in self._decoded if item[0] is not job)

    def close(self) -> None:
        """Ends the threads after the jobs that were submitted; does not wait for them."""
        with self._work:
            self._is_closed = True
            self._work.notify_all()

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            if isinstance(work, Batch):
                self._compute_batch(work)
            else:
                self._decode_image(*work)

    def _next_work(self) -> Batch | Encoded | None:
        """Waits for a batch to compute, or an image to decode; None after `close`."""
        with self._work:
            while True:
                delay: float | None = None
                if self._decoded and len(self._start_times) < self._max_computing:
                    delay = self._delay_of_batch()
                    if delay <= 0:
                        return self._take_batch()
                if self._encoded and self._num_decoding < self._num_decoders:
                    self._num_decoding += 1
                    if delay is not None:
                        self._work.notify()  # another thread watches the deadline
                    return self._encoded.popleft()
                if self._is_closed and not self._encoded and not self._decoded and not self._num_decoding:
                    self._work.notify_all()
                    return None
                self._work.wait(delay)

    def _delay_of_batch(self) -> float:
        """How many seconds the decoded images wait for others; at most 0 if they are computed now."""
        is_last = not self._encoded and not self._num_decoding
        if is_last or len(self._decoded) >= self._batch_size:
            return 0.0
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._max_delay_seconds
        return self._deadline - now

    def _take_batch(self) -> Batch:
        self._deadline = None
        size, compute = min(len(self._decoded), self._batch_size), self._compute
        if self._concurrent is not None:
            is_alone = len(self._decoded) == 1 and not (self._encoded or self._num_decoding or self._start_times)
            compute = self._concurrent.alone if is_alone else self._concurrent.compute
        batch = Batch([self._decoded.popleft() for _ in range(size)], compute, time.monotonic())
        self._start_times[threading.get_ident()] = batch.start_time
        if self._encoded or self._decoded:
            self._work.notify()  # another thread takes the remaining work
        return batch

    def _decode_image(self, job: Job, index: int, data: bytes) -> None:
        error: Exception | None = None
        image: np.ndarray | None = None
        reason = ""
        try:
            image = self._decode(data)
        except DataError as problem:
            reason = str(problem)
        except Exception as problem:  # noqa: BLE001  # it would end the thread, and with it a decoder
            logging.exception("An image could not be decoded.")
            error = problem
        with self._work:
            self._num_decoding -= 1
            if job.is_abandoned:
                image = None
            elif image is not None:
                self._decoded.append((job, index, image))
            is_done = image is None and self._record(job, index, BadImage(reason), error)
            # This thread takes the next work itself; another is needed if there is more than one piece.
            if len(self._decoded) + len(self._encoded) > 1 or self._is_closed:
                self._work.notify()
        if is_done:
            deliver([job])

    def _compute_batch(self, batch: Batch) -> None:
        images = [image for _, _, image in batch.images]
        is_finite: np.ndarray = np.zeros(len(images), bool)
        try:
            rows = batch.compute(np.stack(images) if len(images) > 1 else images[0][None])
            is_finite = np.asarray(np.isfinite(rows).all(axis=1))
            # A single image may cause NaN; if all results of a batch are NaN, the network does.
            self._note_error(None if is_finite.any() else ArithmeticError("all probabilities are NaN or infinite"))
        except Exception as problem:  # noqa: BLE001  # whatever the network raises is the answer of this batch
            self._note_error(problem)
        seconds = time.monotonic() - batch.start_time
        done: list[Job] = []
        with self._work:
            del self._start_times[threading.get_ident()]
            if not self._last_error:
                per_image = seconds / len(images) / self._max_computing
                self._seconds_per_image = per_image + 0.9 * ((self._seconds_per_image or per_image) - per_image)
            for number, (job, index, _) in enumerate(batch.images):
                job.queue_seconds = max(job.queue_seconds, batch.start_time - job.start_time)
                job.compute_seconds = max(job.compute_seconds, seconds)
                row, error = (rows[number], None) if is_finite[number] else (None, InferenceFailed())
                if self._record(job, index, row, error):
                    done.append(job)
            if self._decoded or self._encoded:
                self._work.notify()
        deliver(done)
        if self._on_batch is not None:
            try:
                self._on_batch(len(images), seconds)
            except Exception:  # noqa: BLE001  # a thread that ends would leave all requests without an answer
                logging.exception("The metrics of a batch could not be recorded.")

    def _record(self, job: Job, index: int, row: Row | None, error: Exception | None) -> bool:
        """Records the result of an image; returns whether that completes the job."""
        if job.is_abandoned or (job.error is not None):
            return False
        if error is not None:
            job.error = error
            return True
        job.rows[index] = row
        job.num_missing -= 1
        return not job.num_missing

    def _note_error(self, problem: Exception | None) -> None:
        reason = "" if problem is None else f"{type(problem).__name__}: {problem}"
        if reason and reason != self._last_error:  # once, not for each of a thousand batches
            logging.error("Inference failed: %s", reason, exc_info=problem)
        self._last_error = reason
