"""A proxy in front of the S3 server that injects faults: it delays, cuts off, damages and refuses."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Fault", "Proxy", "Request", "proxied"]

HEAD_END = b"\r\n\r\n"
MAX_READ_BYTES = 64 << 10


@dataclass
class Request:
    """A request of a client: `head` is the request line with the headers."""

    method: str
    target: str
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        return _header(self.head, name)


@dataclass
class Fault:
    """What happens to a matching request; the first fault that matches and has `times` left applies.

    Attributes:
        method, target: the requests that match; `target` is a substring of path and query. "" matches all.
        times: number of requests to which the fault still applies.
        status, code: if set, the answer is this error of S3, without a request to the server.
        head: further header lines of that error.
        cut: closes the connection after this many bytes of the server's body.
        stall: after this many bytes of the server's body, nothing is sent until the proxy is closed.
        corrupt: position of a byte of the server's body in which a bit is flipped.
        corrupt_upload: position of a byte of the client's body in which a bit is flipped.
        drop: closes the connection without an answer, after the server has processed the request.
        pace: the server's body is passed on in pieces of at most this many bytes with pauses of 20 ms; 0: no pauses.
        before, after: called before the request is sent to the server, and after its answer has been passed on.
    """

    method: str = ""
    target: str = ""
    times: int = 1
    status: int = 0
    code: str = ""
    head: str = ""
    cut: int | None = None
    stall: int | None = None
    corrupt: int | None = None
    corrupt_upload: int | None = None
    drop: bool = False
    pace: int = 0
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None

    def matches(self, request: Request) -> bool:
        return self.times > 0 and self.method in ("", request.method) and self.target in request.target


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        endpoint: its URL.
        requests: all requests received so far.
        faults: the faults to inject; may be changed at any time.
    """

    upstream: int
    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _tasks: set[asyncio.Task[None] | None] = field(default_factory=set)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://{'localhost' if self.scheme == 'https' else '127.0.0.1'}:{self.port}"

    def count(self, method: str, target: str = "") -> int:
        """The number of requests received with this method and a `target` that contains the given one."""
        return sum(each.method == method and target in each.target for each in self.requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)  # asyncio itself has only a weak reference
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.transport.abort()
        self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(HEAD_END)
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        if _header(head, "Expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(_header(head, "Content-Length") or 0))
        request = Request(method, target, head, body)
        self.requests.append(request)
        fault = next((each for each in self.faults if each.matches(request)), Fault())
        fault.times -= 1
        if fault.before is not None:
            await asyncio.to_thread(fault.before)
        if fault.status:
            writer.write(_error(fault, method))
            return True
        if fault.corrupt_upload is not None:
            request.body = _bit_flipped(body, fault.corrupt_upload)
        keep_alive = await self._forward(request, fault, writer)
        if fault.after is not None:
            await asyncio.to_thread(fault.after)
        return keep_alive

    async def _forward(self, request: Request, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        reader, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            upstream.write(request.head + request.body)
            head = await reader.readuntil(HEAD_END)
            if fault.drop:
                return False
            writer.write(head)
            chunked = "chunked" in _header(head, "Transfer-Encoding").lower()
            remaining = 0 if request.method == "HEAD" else int(_header(head, "Content-Length") or 0)
            position = 0
            while chunked or remaining:
                data = await reader.read(min(MAX_READ_BYTES, fault.pace or MAX_READ_BYTES, remaining or MAX_READ_BYTES))
                if not data:
                    return False
                end = position + len(data)
                if fault.corrupt is not None and position <= fault.corrupt < end:
                    data = _bit_flipped(data, fault.corrupt - position)
                for limit in (fault.cut, fault.stall):
                    if limit is not None and end > limit:
                        writer.write(data[: limit - position])
                        await writer.drain()
                        if fault.stall is not None:
                            await self._closed.wait()
                        return False
                writer.write(data)
                await writer.drain()
                if fault.pace:
                    await asyncio.sleep(0.02)
                position, remaining = end, max(0, remaining - len(data))
                if chunked and data.endswith(b"0\r\n\r\n"):
                    break
            return not chunked
        finally:
            upstream.transport.abort()


@contextlib.contextmanager
def proxied(upstream: int, certificate: tuple[str, str] | None = None) -> Iterator[Proxy]:
    """Runs a proxy in front of the server at port `upstream`; with TLS if `certificate` names certificate and key."""
    started = threading.Event()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    proxy = Proxy(upstream, scheme="http" if context is None else "https")
    loop = asyncio.new_event_loop()

    async def main() -> None:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context, limit=1 << 20)
        proxy.port = server.sockets[0].getsockname()[1]
        started.set()
        await proxy._closed.wait()
        server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # lets cancelled connections close

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="proxy")
    thread.start()
    try:
        assert started.wait(30)
        yield proxy
    finally:
        loop.call_soon_threadsafe(proxy._closed.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _header(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return ""


def _bit_flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def _error(fault: Fault, method: str) -> bytes:
    body = f"<Error><Code>{fault.code}</Code><Message>refused</Message></Error>" if fault.code else ""
    head = f"HTTP/1.1 {fault.status} Refused\r\nContent-Type: application/xml\r\n{fault.head}"
    if method == "HEAD":
        return f"{head}Content-Length: 0\r\n\r\n".encode()
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
