"""One trained model, ready to answer: it is loaded and warmed up, computes batches, and can be replaced."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from model_trainer.cpu_cores import num_usable_cores
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.answers import Busy, NotReady, Results, TooSlow
from model_trainer.serving.batcher import Batcher
from model_trainer.serving.health import is_able_to_answer
from model_trainer.serving.loading import LoadedModel, load_for_serving
from model_trainer.serving.options import ServeOptions
from model_trainer.specs import ModelSpec

__all__ = ["Service"]

MAX_RETRY_SECONDS = 30


class Service:
    """One trained model, ready to answer.

    All coroutines run in one event loop; `load` in any thread.

    Args:
        path: of the model, as for `load_model`.
        options: of the endpoint.
        trust, spec, classes: as for `load_model`.
        on_batch: called after each batch, with its size and its seconds.

    Attributes:
        num_in_progress: images that are being decoded or computed, or wait for it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: ServeOptions,
        *,
        trust: bool = False,
        spec: ModelSpec | str | None = None,
        classes: Sequence[str] | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.path = path
        self.options = options
        self.num_in_progress = 0
        self._load = functools.partial(load_for_serving, path, options, trust=trust, spec=spec, classes=classes)
        self._on_batch = on_batch
        self._current: tuple[LoadedModel, Batcher] | None = None
        self._is_stopping = False
        # One at a time: attribution maps take as long as predictions, and should not delay these.
        self._attributions = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="attribution")

    @property
    def trained(self) -> TrainedModel | None:
        """The model that answers now; None while the first one is being loaded."""
        return None if self._current is None else self._current[0].trained

    @property
    def loaded(self) -> LoadedModel | None:
        """`trained` with its version and how long it took to load."""
        return None if self._current is None else self._current[0]

    @property
    def model_version(self) -> str:
        """The first characters of the SHA-256 of the model file; empty while the first one is being loaded."""
        return "" if self._current is None else self._current[0].version

    @property
    def status(self) -> Literal["starting", "ready", "failing", "stopping"]:
        """What `GET /ping` answers."""
        if self._is_stopping:
            return "stopping"
        if self._current is None:
            return "starting"
        _, batcher = self._current
        is_failing = batcher.has_failed or batcher.batch_seconds > self.options.request_seconds
        return "failing" if is_failing else "ready"

    def load(self) -> None:
        """Loads the model, chooses its engine, and computes batches of all sizes once; takes seconds.

        Another call replaces the model while requests are answered: those in progress are answered by the model that
        they were sent to.

        Raises:
            ModelTrainerError: the model cannot be loaded or computed.
        """
        loaded = self._load()
        batcher = Batcher(
            loaded.decode,
            loaded.compute,
            max_batch_size=self.options.max_batch_size,
            max_delay_seconds=self.options.max_delay_seconds,
            num_decoders=self.options.num_decoders or num_usable_cores(),
            concurrent=loaded.concurrent,
            on_batch=self._on_batch,
        )
        previous, self._current = self._current, (loaded, batcher)
        if previous is not None:
            previous[1].close()

    async def probabilities(self, images: Sequence[bytes | np.ndarray]) -> Results:
        """Predicts the class probabilities of the images of a request.

        Args:
            images: encoded images, or uint8 arrays of the model's `target_size`.

        Raises:
            NotReady: the model is being loaded, or the server is stopping; or arrays have the size of a model that has
                just been replaced.
            Busy: too many images are in progress.
            TooSlow: it took longer than `request_seconds`.
            InferenceFailed: the network could not be computed.
        """
        loaded, batcher = self._enter(len(images))
        try:
            shape = loaded.black_image.shape
            if any(isinstance(image, np.ndarray) and image.shape != shape for image in images):
                raise NotReady  # in one batch with other images they would make all of them fail
            job = batcher.submit(images)
            timer = job.future.get_loop().call_later(self.options.request_seconds, _time_out, job.future)
            try:
                await job.future
            except BaseException:  # also when the client is gone and the request is cancelled
                batcher.abandon(job)
                raise
            finally:
                timer.cancel()
        finally:
            self.num_in_progress -= len(images)
        rows = [row for row in job.rows if row is not None]  # complete, but the type checker cannot know
        return Results(loaded.trained, rows, job.queue_seconds, job.compute_seconds)

    async def attribution(self, image: bytes, class_index: int | None) -> bytes:
        """Draws which regions of an image support a class.

        Args:
            image: an encoded image.
            class_index: the class; None is the most probable one.

        Returns:
            A PNG; its longer side has at least 448 pixels.

        Raises:
            DataError: the image cannot be read; the message is the reason.
            NoFeatureMap: the network has no attribution maps.
            NotReady, Busy, TooSlow: as `probabilities`.
        """
        loaded, _ = self._enter(1)
        draw = functools.partial(loaded.attribution, image, class_index)
        try:
            async with asyncio.timeout(self.options.request_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._attributions, draw)
        except TimeoutError:
            raise TooSlow from None
        finally:
            self.num_in_progress -= 1

    async def is_healthy(self) -> bool:
        """Whether it is ready, and the network computes; after a failure a black image is computed to find out."""
        if self._is_stopping or self._current is None:
            return False
        loaded, batcher = self._current
        return await is_able_to_answer(batcher, loaded.black_image, self.options.request_seconds)

    def stop(self) -> None:
        """Sets the status "stopping"; requests that have been received are still answered."""
        self._is_stopping = True

    def close(self) -> None:
        """Ends its threads after the images in progress."""
        self._is_stopping = True
        self._attributions.shutdown(wait=False, cancel_futures=True)
        if self._current is not None:
            self._current[1].close()

    def _enter(self, num_images: int) -> tuple[LoadedModel, Batcher]:
        if self._current is None:
            raise NotReady
        # A request that exceeds the limit alone is accepted if it is the only one: it would not shrink by waiting.
        if self.num_in_progress and self.num_in_progress + num_images > self.options.max_waiting:
            raise Busy(self._retry_after(self._current[1]))
        self.num_in_progress += num_images
        return self._current

    def _retry_after(self, batcher: Batcher) -> int:
        seconds = math.ceil(self.num_in_progress * batcher.seconds_per_image)
        return max(1, min(seconds, MAX_RETRY_SECONDS))


def _time_out(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TooSlow())
