"""The HTTP interface: an ASGI app over a service.

`/invocations` is answered without a router and without middleware objects, which would take longer than the rest of a
request; all other routes are Starlette's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import time
from collections.abc import AsyncIterator
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_trainer.serving.answers import Busy, InferenceFailed, NotReady, TooSlow
from model_trainer.serving.http.access_log import log_request
from model_trainer.serving.http.attribution import attribution
from model_trainer.serving.http.errors import HttpError, from_service
from model_trainer.serving.http.invocations import Invocations
from model_trainer.serving.http.metrics import Metrics
from model_trainer.serving.http.page import page_routes
from model_trainer.serving.http.requests import Bodies, Disconnected, Request, read_query
from model_trainer.serving.http.responses import HttpResponse, error_response
from model_trainer.serving.http.routes import information_routes
from model_trainer.serving.http.security import Security
from model_trainer.serving.options import ServeOptions

__all__ = ["make_app"]

INVOCATIONS = "/invocations"
ATTRIBUTION = "/attribution"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that did not wait; in log and metrics only
WATCH_SECONDS = 1.0
FAILED = "The server failed; its log has the reason."
NOSNIFF = (b"x-content-type-options", b"nosniff")


def make_app(service: Any, options: ServeOptions, metrics: Metrics) -> ASGIApp:
    """Returns the ASGI app.

    Args:
        service: a `serving.service.Service`, loaded or not.
        metrics: counts the requests; its `observe_batch` is the service's `on_batch`.
    """
    return _App(service, options, metrics)


class _App:
    def __init__(self, service: Any, options: ServeOptions, metrics: Metrics) -> None:
        self._service = service
        self._options = options
        self._metrics = metrics
        self._security = Security(options)
        self._num_explaining = 0  # requests for an attribution map in progress
        self._bodies = Bodies(options.max_body_bytes)
        self._invocations = Invocations(service, options, metrics, self._bodies)
        explain = functools.partial(attribution, service=service)
        routes = [
            *information_routes(service, options, metrics, self._security),
            Route(ATTRIBUTION, explain, methods=["POST"]),
            *page_routes(),
        ]
        self._routes = {route.path for route in routes} | {INVOCATIONS}
        self._others = Starlette(
            routes=routes,
            exception_handlers=HANDLERS,
            lifespan=self._lifespan,
        )
        self._others.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        start = time.perf_counter()
        request = Request(scope, receive)
        try:
            self._security.check(request)
            request.check_headers(self._options.max_body_bytes)
            if request.path != INVOCATIONS:
                await self._answer_other(request, start, send)
                return
            if request.method != "POST":
                raise HttpError(405, "Send the images with POST.", ((b"allow", b"POST"),))
            answer = await self._invocations(request)
        except HttpError as error:
            answer = error_response(error, request.id)
        except Disconnected:
            self._finish(request, CLIENT_CLOSED_REQUEST, 0, start)
            return
        except Exception:  # noqa: BLE001  # whatever it is, the client gets an answer and no stack trace
            logging.exception("Request %s failed", request.id.decode())
            answer = error_response(HttpError(500, FAILED), request.id)
        await _send(answer, request, send)
        self._finish(request, answer.status, len(answer.body), start)

    async def _answer_other(self, request: Request, start: float, send: Send) -> None:
        status, num_bytes = 0, 0

        async def send_on(message: Message) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [each for each in message["headers"] if each[0] != NOSNIFF[0]]
                message = {**message, "headers": [*headers, NOSNIFF, (b"x-request-id", request.id)]}
            else:
                num_bytes += len(message.get("body", b""))
            await send(message)

        receive = request.receive
        request.scope["request_id"] = request.id
        is_explaining = request.method == "POST" and request.path == ATTRIBUTION
        if is_explaining and self._num_explaining >= self._options.max_waiting:
            raise from_service(Busy())
        self._num_explaining += is_explaining
        self._observe_model()  # for /metrics; in other workers `_watch` does it
        try:
            if is_explaining:
                receive = _replay(await request.body(self._bodies, self._options.body_seconds), receive)
            await self._others(request.scope, receive, send_on)
        except Exception:
            if status:
                logging.exception("Request %s failed after its answer had begun", request.id.decode())
            else:
                raise
        finally:
            self._num_explaining -= is_explaining
            self._bodies.remove(request.num_bytes_in)
        self._finish(request, status, num_bytes, start)

    def _finish(self, request: Request, status: int, num_bytes: int, start: float) -> None:
        seconds = time.perf_counter() - start
        route = request.path if request.path in self._routes else "other"
        self._metrics.observe_request(route, status, seconds, request.num_images)
        if self._options.has_access_log:
            log_request(
                request,
                query=_known_query(request) if route == INVOCATIONS else "",
                status=status,
                seconds=seconds,
                num_bytes_out=num_bytes,
            )

    def _observe_model(self) -> None:
        trained = self._service.trained
        is_ready = self._service.status == "ready"
        if trained is None:
            self._metrics.observe_model(is_ready, "", "", "")
        else:
            self._metrics.observe_model(is_ready, self._service.model_version, trained.engine_name, trained.precision)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # Each of several workers records whether it is ready, also one that gets no request.
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            self._observe_model()
            await asyncio.sleep(WATCH_SECONDS)


async def _send(answer: HttpResponse, request: Request, send: Send) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-request-id", request.id),
        NOSNIFF,
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


@functools.lru_cache(maxsize=64)
def _known_parameters(query: bytes) -> str:
    parsed = read_query(query)
    parts = [] if parsed.top_k is None else [f"top_k={parsed.top_k}"]
    return "&".join([*parts, *(["output=probabilities"] if parsed.output == "probabilities" else [])])


def _known_query(request: Request) -> str:
    with contextlib.suppress(HttpError):
        return _known_parameters(request.scope["query_string"])
    return ""


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that begins with a body that has been read."""
    is_first = True

    async def receive_next() -> Message:
        nonlocal is_first
        if not is_first:
            return await receive()
        is_first = False
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_next


async def _on_http_error(request: Any, error: Any) -> Response:
    answer = error_response(error, request.scope["request_id"])
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers, answer.content_type)


async def _on_service_error(request: Any, error: Any) -> Response:
    return await _on_http_error(request, from_service(error))


async def _on_http_exception(request: Any, error: Any) -> Response:
    """Starlette's 404 and 405, which has Allow, and the errors of routes with a message of their own."""
    default = http.HTTPStatus(error.status_code).phrase
    message = MESSAGES.get(error.status_code, "") if error.detail == default else error.detail
    headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
    return await _on_http_error(request, HttpError(error.status_code, message or default, headers))


async def _on_failure(request: Any, error: Any) -> Response:
    return await _on_http_error(request, HttpError(500, FAILED))


MESSAGES = {404: "There is nothing at this path.", 405: "This path does not support the method."}
HANDLERS: dict[Any, Any] = {
    HTTPException: _on_http_exception,
    HttpError: _on_http_error,
    Exception: _on_failure,
    **dict.fromkeys((NotReady, Busy, TooSlow, InferenceFailed), _on_service_error),
}
