"""`POST /invocations`: from a request to the answer with its predictions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from model_trainer.serving.answers import BadImage, Busy, InferenceFailed, NotReady, Results, TooSlow
from model_trainer.serving.http.errors import HttpError, from_service
from model_trainer.serving.http.images import BodyKind, Images, kind_of_body, read_images
from model_trainer.serving.http.metrics import Metrics
from model_trainer.serving.http.requests import Bodies, Disconnected, Request, read_query
from model_trainer.serving.http.responses import JSON, HttpResponse, encode, negotiate
from model_trainer.serving.options import ServeOptions

__all__ = ["Invocations"]

# Below these, handing the work to another thread takes longer than the work.
SMALL_BODY_BYTES = 2**15
SMALL_ANSWER_NUMBERS = 4000
# A request that takes longer is cancelled when its client disconnects; watching the shorter ones would cost more.
UNWATCHED_SECONDS = 0.2


class Invocations:
    """Answers requests with the predictions of a service.

    Args:
        service: computes probabilities, see `serving/service.py`.
        bodies: counts the bytes of all bodies.
    """

    def __init__(self, service: Any, options: ServeOptions, metrics: Metrics, bodies: Bodies) -> None:
        self._service = service
        self._options = options
        self._metrics = metrics
        self._bodies = bodies
        self._num_requests = 0
        # One thread: the objects that hostile bodies expand to are in memory once, not once for each connection.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse-json")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode-answer")

    async def __call__(self, request: Request) -> HttpResponse:
        """Returns the answer.

        Raises:
            HttpError: with the status and the message.
            Disconnected: the client is gone.
        """
        start = time.perf_counter()
        options = self._options
        content_type = request.headers.get(b"content-type")
        kind, name = kind_of_body(content_type)
        encoding = request.headers.get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            raise HttpError(415, "Content-Encoding is not supported; send the body as it is.")
        accepted = negotiate(request.headers.get(b"accept", b""), default=name if kind == "lines" else JSON)
        query = read_query(request.scope["query_string"])
        if self._num_requests >= options.max_waiting:
            raise from_service(Busy())
        self._num_requests += 1
        try:
            body = await request.body(self._bodies, options.body_seconds)
            async with _cancelled_on_disconnect(request):
                images = await self._read(kind, body, content_type or b"")
                results = await self._compute(request, images, start + options.request_seconds)
        finally:
            self._num_requests -= 1
            self._bodies.remove(request.num_bytes_in)
        top = options.top
        if len(results.rows) * len(results.model.classes) <= SMALL_ANSWER_NUMBERS:
            return encode(results, accepted, query, is_single=images.is_single, top=top)
        return await asyncio.get_running_loop().run_in_executor(
            self._encoder, lambda: encode(results, accepted, query, is_single=images.is_single, top=top)
        )

    async def _read(self, kind: BodyKind, body: bytes, content_type: bytes) -> Images:
        trained = self._service.trained
        if trained is None:
            raise from_service(NotReady())
        shape = tuple(trained.spec.target_size)
        arguments = kind, body, content_type, shape, self._options.max_images
        if kind == "image" or len(body) <= SMALL_BODY_BYTES:
            return read_images(*arguments)
        images = await asyncio.get_running_loop().run_in_executor(self._parser, read_images, *arguments)
        if tuple(self._service.trained.spec.target_size) != shape:  # `--reload`: arrays should fit the new model
            return await self._read(kind, body, content_type)
        return images

    async def _compute(self, request: Request, images: Images, deadline: float) -> Results:
        """Returns the results of all images, including those that are not images of JSON."""
        readable: list[Any] = [image for image in images.images if not isinstance(image, BadImage)]
        num_unreadable = len(images.images) - len(readable)
        if not readable:
            self._metrics.observe_rejected_images(num_unreadable, 0)
            unreadable = [image for image in images.images if isinstance(image, BadImage)]
            return Results(self._service.trained, [*unreadable])
        self._metrics.change_images_in_progress(len(readable))
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):
                results: Results = await self._service.probabilities(readable)
        except (NotReady, Busy, TooSlow, InferenceFailed, TimeoutError) as error:
            self._metrics.observe_rejected_images(num_unreadable, len(readable))
            raise from_service(TooSlow() if isinstance(error, TimeoutError) else error) from error
        finally:
            self._metrics.change_images_in_progress(-len(readable))
        request.queue_seconds, request.compute_seconds = results.queue_seconds, results.compute_seconds
        request.num_images = sum(isinstance(row, np.ndarray) for row in results.rows)
        self._metrics.observe_rejected_images(len(images.images) - request.num_images, 0)
        if not num_unreadable:
            return results
        rows = iter(results.rows)
        merged = [image if isinstance(image, BadImage) else next(rows) for image in images.images]
        return Results(results.model, merged, results.queue_seconds, results.compute_seconds)


@contextlib.asynccontextmanager
async def _cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Ends the block with `Disconnected` when the client closes the connection; uvicorn does not cancel requests."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    watches: list[asyncio.Task[None]] = []
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        await request.wait_for_disconnect()
        is_gone = True
        assert task is not None
        task.cancel()

    timer = loop.call_later(UNWATCHED_SECONDS, lambda: watches.append(loop.create_task(watch())))
    try:
        yield
    except asyncio.CancelledError:
        if is_gone:
            raise Disconnected from None
        raise
    finally:
        timer.cancel()
        for each in watches:
            each.cancel()
