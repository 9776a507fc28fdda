"""The HTTP protocol of uvicorn, with limits that it lacks: slow, silent and greedy clients are cut off.

Deadlines are fields of a connection, which the server checks every `CHECK_SECONDS`: a timer for each phase of each
request would cost more than the phases.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from model_trainer.serving.http.requests import new_request_id
from model_trainer.serving.options import ServeOptions

__all__ = ["CHECK_SECONDS", "GuardedProtocol", "guarded"]

MAX_HEADER_BYTES = 65_536  # request line and headers
MAX_UNUSED_BYTES = 65_536  # of a body, without content between them: chunk sizes and trailers
MAX_CONNECTIONS = 2_000
OTHER_FILES = 256  # that a process has open in addition to its connections
MAX_PIPELINED = 100  # requests of one connection that wait for the answer to an earlier one
MAX_OFFER_BYTES = 4_096  # of a request, in which an offer to upgrade to HTTP/2 is looked for
CHECK_SECONDS = 0.5
# After `body_seconds` the application answers with an error, and the client gets this long to read it.
GRACE_SECONDS = 5.0
# A request that is on its way when the server is told to stop is still answered.
LINGER_SECONDS = 0.5
WRITE_SECONDS = 30.0  # a client that reads nothing of its answer for so long is cut off

_IDLE, _HEADERS, _BODY = range(3)
_LENGTHS = {b"content-length", b"transfer-encoding"}


class GuardedProtocol(HttpToolsProtocol):
    """One connection; `options` is set by a subclass, because uvicorn makes the instances."""

    options: ServeOptions
    max_connections: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Sets the deadline for the first headers, also of a client that sends nothing."""
        super().connection_made(transport)
        self._phase = _IDLE
        self._header_bytes = 0
        self._unused_bytes = 0
        self._has_content = False  # of a body, in the bytes that are parsed now
        self._is_refused = self._is_draining = False
        self._is_last = False
        self._write_deadline: float | None = None
        self._deadline = time.monotonic() + self.options.header_seconds
        if len(self.connections) > self.max_connections and not self._make_room():
            self._refuse(503, "Too many connections; try again later.")

    def data_received(self, data: bytes) -> None:
        """Parses received bytes, and limits those of headers, which httptools collects without a limit."""
        if self._is_refused or self._is_last:
            return
        was_body = self._phase == _BODY
        if not was_body:
            self._header_bytes += len(data)
            data = _without_http2(data)
        self._has_content = False
        super().data_received(data)
        self._unused_bytes = self._unused_bytes + len(data) if was_body and not self._has_content else 0
        if self._phase == _BODY and self._unused_bytes > MAX_UNUSED_BYTES:
            self._refuse(400, "The sizes or trailers of the chunks are too large.")
        # Headers that are complete are checked in `on_headers_complete`; the rest of `data` may be a body.
        if self._phase == _BODY:
            self._header_bytes = 0
        elif self._header_bytes > MAX_HEADER_BYTES:
            if self._phase == _IDLE:  # a request ended in `data`, or it is nothing but line feeds
                self._header_bytes = 0
            else:
                self._refuse(431, f"The headers are larger than {MAX_HEADER_BYTES:,} bytes.")

    def on_message_begin(self) -> None:
        """Sets the deadline for the headers of a request."""
        super().on_message_begin()
        if self.cycle is not None:  # that of the first request was set with the connection
            self._deadline = time.monotonic() + self.options.header_seconds
        self._phase = _HEADERS

    def on_headers_complete(self) -> None:
        """Sets the deadline for the body, and starts the application."""
        self._phase = _BODY
        self._deadline = time.monotonic() + self.options.body_seconds + GRACE_SECONDS
        if self._header_bytes > MAX_HEADER_BYTES and self._size_of_headers() > MAX_HEADER_BYTES:
            self._refuse(431, f"The headers are larger than {MAX_HEADER_BYTES:,} bytes.")
            return
        self._header_bytes = 0
        if self._is_refused:  # this request was pipelined behind the refused one
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(400, f"More than {MAX_PIPELINED} requests wait for their answers.")
            return
        # The parser treats what follows as another protocol, so a body would be read as requests that no client sent.
        self._is_last = self.parser.should_upgrade()
        if self._is_last and any(name in _LENGTHS for name, _ in self.headers):
            self._refuse(400, "The header Upgrade is not supported; send the request without it.")
            return
        super().on_headers_complete()
        if self._is_last or self._is_draining:
            self.cycle.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collects a header; those after the body (trailers) are ignored, because a proxy does not check them."""
        if self._phase != _BODY:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Passes a chunk of the body to the application."""
        self._has_content = True
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Replaces the deadline for the body with that for the next request."""
        self._phase = _IDLE
        self._deadline = time.monotonic() + self.options.idle_seconds
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Sets the deadline for the next request."""
        if self._phase == _IDLE:
            self._deadline = time.monotonic() + self.options.idle_seconds
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Sets the deadline for the client to read its answer."""
        super().pause_writing()
        self._write_deadline = time.monotonic() + WRITE_SECONDS

    def resume_writing(self) -> None:
        """Removes the deadline: the client reads again."""
        super().resume_writing()
        self._write_deadline = None

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are not HTTP, in the JSON of all errors."""
        self._refuse(400, msg)

    def shutdown(self) -> None:
        """Closes the connection after the request in progress, or the one that its client may be sending."""
        self._is_draining = True
        if self._is_answering():
            super().shutdown()
        else:
            self.loop.call_later(LINGER_SECONDS, super().shutdown)

    def check(self, now: float) -> None:
        """Cuts the connection off if a deadline has passed.

        Args:
            now: `time.monotonic()`.
        """
        if self._write_deadline is not None and now > self._write_deadline:
            self.transport.abort()
        elif now > self._deadline and not (self._phase == _IDLE and self._is_answering()):
            self._cut_off()

    def _make_room(self) -> bool:
        """Closes up to a tenth of the connections, those that have been idle longest; returns whether there are any."""
        others = [each for each in self.connections if isinstance(each, GuardedProtocol) and each is not self]
        waiting = [each for each in others if not each._is_answering()]
        waiting.sort(key=lambda each: (each.cycle is not None, each._deadline))  # silent ones first
        for connection in waiting[: max(1, self.max_connections // 10)]:
            connection._is_refused = True
            connection.transport.abort()
        return bool(waiting)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _cut_off(self) -> None:
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()  # `close` would wait for the client to read the rest
        elif self._phase == _HEADERS and not self._is_answering():
            self._refuse(408, f"The headers took longer than {self.options.header_seconds:g} seconds.")
        else:
            self.transport.close()

    def _size_of_headers(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, status: int, message: str) -> None:
        """Answers without the application, and closes the connection."""
        self._is_refused = True
        if self.transport.is_closing():
            return
        # Otherwise these bytes would become part of another answer.
        if not self.pipeline and not (self._is_answering() and self.cycle.response_started):
            request_id = new_request_id()
            body = json.dumps({"error": message, "request_id": request_id.decode()}).encode()
            head = [
                STATUS_LINE[status],
                b"content-type: application/json\r\nx-content-type-options: nosniff\r\nconnection: close\r\n",
                b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (request_id, len(body)),
            ]
            self.transport.write(b"".join([*head, body]))
        if self.cycle is not None:  # the application does not answer any longer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _without_http2(data: bytes) -> bytes:
    """Removes `Upgrade: h2c`, with which Java's and other clients offer to continue in HTTP/2, from the headers.

    With it the parser would consider the request complete after its headers, and its body another protocol.
    """
    if data.find(b"h2c", 0, MAX_OFFER_BYTES) < 0:
        return data
    head, separator, body = data.partition(b"\r\n\r\n")
    return re.sub(rb"(?i)\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n|$)", b"", head) + separator + body


def guarded(options: ServeOptions) -> type[GuardedProtocol]:
    """Returns the protocol class for these options, and raises this process's limit of open files to its maximum."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own below an infinite `hard`
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    room = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(soft - OTHER_FILES, soft // 2)
    attributes: dict[str, Any] = {"options": options, "max_connections": min(MAX_CONNECTIONS, room)}
    return type("GuardedProtocol", (GuardedProtocol,), attributes)
