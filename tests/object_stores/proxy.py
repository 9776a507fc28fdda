"""A proxy before the S3 server that does what networks and stores do: it delays, cuts, damages and refuses."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Fault", "Proxy", "Request", "proxied"]

HEAD_END = b"\r\n\r\n"
PIECE = 64 << 10


@dataclass
class Request:
    """What a client has sent."""

    method: str
    target: str
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        return _header(self.head, name)


@dataclass
class Fault:
    """What is done to requests that match; the first fault that matches and is not used up is taken.

    Attributes:
        method, target: of the requests; `target` is a part of path and query. "" matches all.
        times: how many requests it is done to.
        status, code: answers with an error of S3, instead of asking the server.
        head: more lines of that answer.
        cut: ends the connection after so many bytes of the server's body.
        stall: waits after so many bytes of the server's body, until the proxy is closed.
        corrupt: position of a byte of the server's body that is changed.
        corrupt_upload: position of a byte of the client's body that is changed.
        drop: ends the connection after the server has done what was asked, without an answer.
        pace: bytes of the server's body that are passed on before each pause of 20 ms.
        before, after: called before the server is asked, and after its answer has been passed on.
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
        requests: all that it has received.
        faults: what it does; may be changed at any time.
    """

    upstream: int
    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://{'localhost' if self.scheme == 'https' else '127.0.0.1'}:{self.port}"

    def count(self, method: str, target: str = "") -> int:
        """How many such requests were received."""
        return sum(each.method == method and target in each.target for each in self.requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.transport.abort()

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
            request.body = _changed(body, fault.corrupt_upload)
        kept = await self._forward(request, fault, writer)
        if fault.after is not None:
            await asyncio.to_thread(fault.after)
        return kept

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
                data = await reader.read(min(PIECE, fault.pace or PIECE, remaining or PIECE))
                if not data:
                    return False
                end = position + len(data)
                if fault.corrupt is not None and position <= fault.corrupt < end:
                    data = _changed(data, fault.corrupt - position)
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
    """A proxy before the server at port `upstream`, inside the `with` block; with TLS by a certificate and its key."""
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
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


def _changed(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def _error(fault: Fault, method: str) -> bytes:
    body = f"<Error><Code>{fault.code}</Code><Message>refused</Message></Error>" if fault.code else ""
    head = f"HTTP/1.1 {fault.status} Refused\r\nContent-Type: application/xml\r\n{fault.head}"
    if method == "HEAD":
        return f"{head}Content-Length: 0\r\n\r\n".encode()
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
