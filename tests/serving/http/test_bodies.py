"""Request bodies: limits per body and over all bodies, contradicting headers, and clients that disconnect early."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from model_trainer.serving.http import requests
from model_trainer.serving.http.app import make_app
from model_trainer.serving.http.metrics import Metrics
from model_trainer.serving.options import ServeOptions


def test_a_body_with_too_large_a_content_length_is_not_read(make_client, service) -> None:
    async def never() -> Any:
        raise AssertionError("was read")

    status, headers, _ = ask(make_client(max_body_bytes=10).app, never, length="11")
    assert (status, headers[b"connection"]) == (413, b"close")


def test_a_body_without_content_length_is_read_only_up_to_the_limit(make_client) -> None:
    chunks = iter([b"12345", b"6789", b"ab", b"never asked for"])

    async def receive() -> Any:
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    status, headers, _ = ask(make_client(max_body_bytes=10).app, receive)
    assert (status, headers[b"connection"]) == (413, b"close")
    assert next(chunks) == b"never asked for"


def test_a_body_in_several_chunks_is_joined(client, jpegs) -> None:
    pieces = iter([jpegs[0][:100], b"", jpegs[0][100:]])

    async def receive() -> Any:
        piece = next(pieces)
        return {"type": "http.request", "body": piece, "more_body": not piece.endswith(b"\xff\xd9")}

    assert ask(client.app, receive)[0] == 200


def test_a_body_that_does_not_arrive_is_answered_408(make_client) -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    status, headers, _ = ask(make_client(body_seconds=0.01).app, receive)
    assert (status, headers[b"connection"]) == (408, b"close")


def test_a_disconnected_client_gets_no_response(client, service) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    assert ask(client.app, receive)[0] is None
    assert not service.received


def test_a_request_is_cancelled_when_its_client_disconnects(client, service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_trainer.serving.http.invocations.UNWATCHED_SECONDS", 0.0)
    is_computing = asyncio.Event()
    ends: list[str] = []
    messages = [{"type": "http.request", "body": b"image"}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await is_computing.wait()
        return {"type": "http.disconnect"}

    async def compute_forever(images: Any) -> None:
        is_computing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    monkeypatch.setattr(service, "probabilities", compute_forever)
    assert ask(client.app, receive)[0] is None
    assert ends == ["cancelled"]
    assert 'requests_total{route="/invocations",status="499"} 1.0' in client.metrics.render()[0].decode()


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"3"), (b"content-length", b"4")],
        [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"-3")],
        [(b"content-length", b"3, 3")],
        [(b"host", b"localhost")],
        [(b"content-type", b"image/png")],
    ],
)
def test_contradicting_headers_are_refused(client, headers: list[tuple[bytes, bytes]]) -> None:
    async def receive() -> Any:
        raise AssertionError("was read")

    assert ask(client.app, receive, more=headers)[0] == 400


@pytest.mark.parametrize("path", ["/invocations", "/attribution"])
def test_a_busy_server_refuses_requests_before_reading_their_bodies(service, jpegs, path: str) -> None:
    app = make_app(service, ServeOptions(max_waiting=1, has_access_log=False), Metrics())

    async def ask_two() -> list[int]:
        is_accepted, may_continue = asyncio.Event(), asyncio.Event()

        async def slow_body() -> Any:
            is_accepted.set()
            await may_continue.wait()
            yield jpegs[0]

        headers = {"content-type": "image/jpeg"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            first = asyncio.create_task(client.post(path, content=slow_body(), headers=headers))
            await is_accepted.wait()
            second = await client.post(path, content=jpegs[0], headers=headers)
            may_continue.set()
            return [(await first).status_code, second.status_code]

    assert asyncio.run(ask_two()) == [200, 429]


def test_the_total_size_of_all_bodies_is_limited(make_client, jpegs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BYTES_OF_BODIES", 0)
    app = make_client(max_body_bytes=len(jpegs[0])).app  # room for four of them

    async def ask_five() -> list[int]:
        statuses: list[int] = []
        is_refused = asyncio.Event()

        async def body() -> Any:
            yield jpegs[0][:-1]
            await is_refused.wait()
            yield jpegs[0][-1:]

        async def post(path: str) -> None:
            response = await client.post(path, content=body(), headers={"content-type": "image/jpeg"})
            statuses.append(response.status_code)
            is_refused.set()

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            await asyncio.gather(*(post(path) for path in 2 * ["/invocations", "/attribution"] + ["/invocations"]))
        return statuses

    for _ in range(2):  # bodies of answered requests no longer count
        assert asyncio.run(ask_five()) == [429, 200, 200, 200, 200]


@pytest.mark.parametrize("path", ["/ping", "/model", "/nothing", "/"])
def test_a_body_that_no_route_needs_is_not_read(client, path: str) -> None:
    async def receive() -> Any:
        raise AssertionError("was read")

    assert ask(client.app, receive, path=path)[0] in (404, 405)


def ask(
    app: Any, receive: Any, *, path: str = "/invocations", length: str | None = None, more: Any = ()
) -> tuple[int | None, dict[bytes, bytes], bytes]:
    """Posts an image without a client library, which would correct the request; returns status, headers and body."""
    sent: list[Any] = []
    headers = [(b"host", b"localhost"), (b"content-type", b"image/jpeg"), *more]
    if length is not None:
        headers.append((b"content-length", length.encode()))

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None, {}, b""
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]
