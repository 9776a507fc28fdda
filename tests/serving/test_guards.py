"""Limits for clients that are slow, silent or greedy, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from model_trainer.serving import guards
from model_trainer.serving.http_server import HttpServer
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.server import bind

SECONDS = 30.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Responds with the body of the request; /large with 64 MB, /headers with the names of the request's headers,
    /early before it has read the body."""
    body = b"0" * 2**26 if scope["path"] == "/large" else b""
    while scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    if scope["path"] == "/headers":
        body = b",".join(name for name, _ in scope["headers"])
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., tuple[str, int]]]:
    """Starts servers in threads, one for each set of time limits; returns their addresses."""
    started: dict[tuple[Any, ...], tuple[HttpServer, threading.Thread, tuple[str, int]]] = {}

    def start_server(**seconds: float) -> tuple[str, int]:
        key = tuple(sorted(seconds.items()))
        if key not in started:
            options = ServeOptions(port=0, drain_seconds=1, **seconds)
            listener = bind(options.host, options.port)
            server = HttpServer(echo, SimpleNamespace(stop=lambda: None), options)
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            started[key] = server, thread, listener.getsockname()
        return started[key][2]

    yield start_server
    for server, _, _ in started.values():
        server.should_exit = True
    for _, thread, _ in started.values():
        thread.join()


@contextlib.contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=SECONDS) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Reads until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            received += data
    return received


def read_answer(connection: socket.socket) -> bytes:
    """Reads a response with a short body or none."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65_536)
        assert data
        received += data
    return received


def test_a_silent_connection_is_closed(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start(header_seconds=0.1)) as connection:
        assert read_all(connection) == b""


def test_unfinished_headers_are_answered_408(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start(header_seconds=0.1)) as connection:
        connection.sendall(GET)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"] == "The headers took longer than 0.1 seconds."


def test_occasional_line_feeds_do_not_keep_a_connection_open(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start(header_seconds=0.1)) as connection:
        connection.settimeout(0.05)
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(1000):
                connection.sendall(b"\r\n")
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1):
                        raise ConnectionResetError


def test_the_headers_of_a_second_request_have_a_timeout_too(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start(header_seconds=0.1)) as connection:
        connection.sendall(GET + b"\r\n")
        assert read_answer(connection).startswith(ANSWER)
        connection.sendall(GET)
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start(idle_seconds=0.1)) as connection:
        connection.sendall(GET + b"\r\n")
        assert read_answer(connection).startswith(ANSWER)
        assert read_all(connection) == b""


def test_an_unfinished_body_closes_the_connection(
    start: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "GRACE_SECONDS", 0.0)
    with connected(start(body_seconds=0.1)) as connection:
        connection.sendall(GET + b"Content-Length: 10\r\n\r\n12345")
        assert read_all(connection) == b""


def test_an_unfinished_body_after_its_response_closes_the_connection(
    start: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "GRACE_SECONDS", 0.0)
    with connected(start(body_seconds=0.1)) as connection:
        connection.sendall(b"GET /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        assert read_all(connection).startswith(ANSWER)


def test_a_client_that_does_not_read_its_response_is_disconnected(
    start: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "WRITE_SECONDS", 0.0)
    with connected(start(idle_seconds=600)) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        # The client does not read; that the connection was closed shows when it sends.
        connection.settimeout(0.05)
        for _ in range(1000):
            with contextlib.suppress(TimeoutError):
                try:
                    connection.sendall(b"GET / HTTP/1.1\r\n")
                except ConnectionError:
                    return
                threading.Event().wait(0.01)
    pytest.fail("The connection is still open.")


@pytest.mark.parametrize("header", [b"X: " + b"a" * 70_000 + b"\r\n", b"X: a\r\n" * 12_000])
def test_headers_of_more_than_64_kib_are_answered_431(start: Callable[..., tuple[str, int]], header: bytes) -> None:
    with connected(start()) as connection:
        connection.sendall(GET + header + b"\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_an_endless_header_is_answered_431(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start()) as connection:
        connection.sendall(GET + b"X: " + b"a" * 70_000)
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_a_large_body_does_not_count_as_headers(start: Callable[..., tuple[str, int]]) -> None:
    body = b"0" * 500_000
    with connected(start()) as connection:
        connection.sendall(GET + b"Connection: close\r\nContent-Length: 500000\r\n\r\n" + body)
        assert read_all(connection).endswith(b"\r\n\r\n" + body)


def test_data_that_is_not_http_is_answered_400(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start()) as connection:
        connection.sendall(b"hello\r\n\r\n")
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"] == "Invalid HTTP request received."
    assert f"x-request-id: {json.loads(body)['request_id']}".encode() in head


def test_invalid_chunks_are_answered_400(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start()) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nphoto\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c" + b" " * 5000])
def test_the_body_of_an_upgrade_request_is_not_read_as_further_requests(
    start: Callable[..., tuple[str, int]], protocol: bytes
) -> None:
    hidden = GET + b"\r\n"
    padding = b"X: " + b"a" * guards.MAX_OFFER_BYTES + b"\r\n"
    head = POST + padding + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\nContent-Length: %d\r\n\r\n"
    with connected(start()) as connection:
        connection.sendall(head % len(hidden))
        received = connection.recv(12)  # so that the body arrives separately
        with contextlib.suppress(ConnectionError):
            connection.sendall(hidden)
        received += read_all(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1


def test_an_upgrade_request_without_a_body_is_answered(
    start: Callable[..., tuple[str, int]],
) -> None:
    with connected(start()) as connection:
        connection.sendall(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_all(connection).startswith(ANSWER)


def test_trailers_are_not_headers(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start()) as connection:
        connection.sendall(
            b"POST /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nAuthorization: Bearer token\r\n\r\n"
        )
        answer = read_all(connection)
    assert answer.endswith(b"host,connection,transfer-encoding")


@pytest.mark.parametrize("start_of_rest", [b"0\r\nX: ", b"5;", b"0", b"0\r\n"])
def test_the_overhead_of_chunked_bodies_is_limited(start: Callable[..., tuple[str, int]], start_of_rest: bytes) -> None:
    rest = b"X: a\r\n" * 50_000 if start_of_rest.endswith(b"\n") else b"0" * 300_000
    with connected(start()) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + start_of_rest)
        with contextlib.suppress(ConnectionError):
            connection.sendall(rest)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 400 ") or not received  # a reset may arrive before it


def test_too_many_pipelined_requests_close_the_connection(
    start: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_PIPELINED", 2)
    with connected(start()) as connection:
        connection.sendall((GET + b"\r\n") * 4)
        assert read_all(connection).count(ANSWER) == 0


def test_a_client_that_offers_http2_is_answered_in_http1(start: Callable[..., tuple[str, int]]) -> None:
    offer = b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with connected(start()) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 6\r\n\r\nphoto.")
        assert read_all(connection).endswith(b"\r\n\r\nphoto.")


def test_pipelined_requests_are_answered_in_order(start: Callable[..., tuple[str, int]]) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    with connected(start()) as connection:
        connection.sendall(request + b"\r\n1" + request + b"\r\n2" + request + b"Connection: close\r\n\r\n3")
        answers = read_all(connection).split(ANSWER)
    assert [answer[-1:] for answer in answers[1:]] == [b"1", b"2", b"3"]


def test_a_connection_beyond_the_limit_closes_a_silent_one(
    start: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_CONNECTIONS", 1)
    address = start(header_seconds=600)
    with connected(address) as silent, connected(address) as second:
        assert read_all(silent) == b""
        second.sendall(GET + b"\r\n")
        assert read_answer(second).startswith(ANSWER)


def test_a_connection_beyond_the_limit_is_answered_503_if_all_others_are_active(
    start: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_CONNECTIONS", 1)
    address = start(header_seconds=601)
    with connected(address) as first:
        first.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 6\r\n\r\n")
        assert read_answer(first).startswith(b"HTTP/1.1 100 ")  # the request is in progress
        with connected(address) as second:
            assert read_all(second).startswith(b"HTTP/1.1 503 ")
        first.sendall(b"photo.")
        assert read_answer(first).startswith(ANSWER)


def test_responses_do_not_name_the_server_software(start: Callable[..., tuple[str, int]]) -> None:
    with connected(start()) as connection:
        connection.sendall(GET + b"\r\n")
        assert b"\nserver:" not in read_answer(connection).lower()


def test_a_request_sent_while_the_server_stops_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "LINGER_SECONDS", SECONDS)
    listener = bind("127.0.0.1", 0)
    address = listener.getsockname()
    server = HttpServer(echo, SimpleNamespace(stop=lambda: None), ServeOptions(port=0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    with connected(address) as connection:
        connection.sendall(GET + b"\r\n")
        assert read_answer(connection).startswith(ANSWER)
        server.should_exit = True
        with pytest.raises(ConnectionRefusedError):  # noqa: PT012
            while True:
                socket.create_connection(address).close()
        connection.sendall(GET + b"\r\n")
        answer = read_all(connection)
    thread.join()
    assert answer.startswith(ANSWER)
    assert b"connection: close" in answer


def test_a_server_in_a_thread_can_be_stopped() -> None:
    options = ServeOptions(port=0)
    server = HttpServer(echo, SimpleNamespace(stop=lambda: None), options)

    async def body() -> None:
        server.should_exit = True
        await server.serve(sockets=[bind(options.host, 0)])

    asyncio.run(body())
