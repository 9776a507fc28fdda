"""Reads a request: the headers that matter, the query and the body, within the limits of the options."""

from __future__ import annotations

import asyncio
import difflib
import functools
import random
import re
import urllib.parse
from dataclasses import dataclass
from typing import Literal

from starlette.types import Receive, Scope

from model_trainer.serving.http.errors import HttpError

__all__ = ["MAX_TOP_K", "Bodies", "Disconnected", "Query", "Request", "new_request_id", "read_query"]

MAX_QUERY_BYTES = 2000
MAX_PARAMETERS = 50
MAX_TOP_K = 999_999_999
MAX_BYTES_OF_BODIES = 2**28  # of all requests in progress together; more if four of the largest body need more
ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# If one of these is sent twice, a proxy and this server could use different values.
SINGLE = {b"authorization", b"content-length", b"content-type", b"content-encoding", b"host", b"origin"}


class Disconnected(Exception):
    """The client has closed the connection."""


def new_request_id() -> bytes:
    """Returns the `X-Request-Id` of a request that has none of its own."""
    return b"%016x" % random.getrandbits(64)  # it names a request, and protects nothing


@dataclass(frozen=True, slots=True)
class Query:
    """The query of `/invocations`.

    Attributes:
        top_k: number of labels for each image; None is the default of the server.
        output: labels, or the probabilities of all classes.
    """

    top_k: int | None = None
    output: Literal["labels", "probabilities"] = "labels"


class Bodies:
    """Counts the bytes of the bodies of all requests in progress, which would fill the memory without a limit.

    Args:
        max_body_bytes: the limit of one body.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._limit = max(MAX_BYTES_OF_BODIES, 4 * max_body_bytes)
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Counts received bytes; raises HttpError 429 if there are too many."""
        self._num_bytes += num_bytes
        if self._num_bytes > self._limit:
            raise HttpError(
                429,
                "Too much memory is in use by other requests. Send the request again in 1 s.",
                ((b"retry-after", b"1"),),
                closes=True,
            )

    def remove(self, num_bytes: int) -> None:
        """Counts bytes that are not needed any longer."""
        self._num_bytes -= num_bytes


class Request:
    """One request, whose body has not been read yet.

    Attributes:
        headers: by lower-case name; the first value of a header that is repeated, but all values of Accept.
        repeated: name of a repeated header that may be sent only once; empty if there is none.
        id: the client's own X-Request-Id if it is valid, else a new one.
        num_bytes_in: of the body, as far as it has been read.
        num_images, queue_seconds, compute_seconds: for the access log.
    """

    __slots__ = (
        "compute_seconds", "headers", "id", "method", "num_bytes_in", "num_images", "path", "queue_seconds", "receive",
        "repeated", "scope",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = {}
        self.repeated = ""
        for name, value in scope["headers"]:
            if name not in self.headers:
                self.headers[name] = value
            elif name in SINGLE:
                self.repeated = name.decode("latin-1")
            elif name == b"accept":
                self.headers[name] += b"," + value
        own_id = self.headers.get(b"x-request-id", b"")
        self.id = own_id if ID.fullmatch(own_id) else new_request_id()
        self.num_bytes_in = self.num_images = 0
        self.queue_seconds = self.compute_seconds = 0.0

    def check_headers(self, max_body_bytes: int) -> None:
        """Raises HttpError if the headers contradict one another, or announce a body that is too large."""
        if self.repeated:
            raise HttpError(400, f"The header {self.repeated} is there more than once; send it once.", closes=True)
        length = self.headers.get(b"content-length")
        if length is None:
            return
        if b"transfer-encoding" in self.headers:
            raise HttpError(400, "Content-Length and Transfer-Encoding exclude one another; send one.", closes=True)
        if not length.isdigit():
            raise HttpError(400, "Content-Length should be a number of bytes.", closes=True)
        if len(length) > 18 or int(length) > max_body_bytes:
            raise _too_large(max_body_bytes)

    async def body(self, bodies: Bodies, seconds: float) -> bytes:
        """Returns the body; the caller removes `num_bytes_in` from `bodies` at the end, also after an error.

        Raises:
            HttpError: 413 as soon as the body exceeds its limit, 408 if it is not complete after `seconds`, 429 if the
                bodies of all requests are too large together.
            Disconnected: the client is gone.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._body(bodies)
        except TimeoutError:
            raise HttpError(408, f"The body was not complete after {seconds:g} s.", closes=True) from None

    async def _body(self, bodies: Bodies) -> bytes:
        chunks: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk: bytes = message.get("body", b"")
            self.num_bytes_in += len(chunk)
            bodies.add(len(chunk))
            if self.num_bytes_in > bodies.max_body_bytes:
                raise _too_large(bodies.max_body_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def wait_for_disconnect(self) -> None:
        """Returns when the client has closed the connection; for use after `body`."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(413, f"The body is larger than the limit of {max_bytes:,} bytes.", closes=True)


@functools.lru_cache(maxsize=64)
def read_query(query: bytes) -> Query:
    """Reads the query of `/invocations`.

    Names that resemble none of the known ones are ignored, because proxies and caches add their own.

    Raises:
        HttpError: 400, a value is wrong, a known name is repeated, or a name seems to be a misspelt known one.
    """
    if not query:
        return Query()
    if len(query) > MAX_QUERY_BYTES:
        raise HttpError(400, f"The query is longer than {MAX_QUERY_BYTES:,} bytes.")
    try:
        pairs = urllib.parse.parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise HttpError(400, f"The query has more than {MAX_PARAMETERS} parameters.") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in ("top_k", "output"):
            _check_spelling(name)
        elif name in values:
            raise HttpError(400, f"The query contains {name} more than once; send it once.")
        else:
            values[name] = value
    return Query(_top_k(values.get("top_k")), _output(values.get("output", "labels")))


def _check_spelling(name: str) -> None:
    plain = name.lower().replace("-", "_")
    meant = difflib.get_close_matches(plain, ("top_k", "output"), 1, 0.8) if len(plain) < 10 else []
    if meant:
        raise HttpError(400, f"The query parameter {name[:40]!r} does not exist. Did you mean {meant[0]}?")


def _top_k(value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,9}", value) or int(value) < 1:
        raise HttpError(400, f"top_k should be a whole number from 1 on; received {value[:40]!r}.")
    return int(value)


def _output(value: str) -> Literal["labels", "probabilities"]:
    if value == "labels":
        return "labels"
    if value == "probabilities":
        return "probabilities"
    raise HttpError(400, f"output should be labels or probabilities; received {value[:40]!r}.")
