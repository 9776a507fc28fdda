"""The HTTP client of `serve.py`, in a separate process. Pure Python.

    python benchmarks/serve_client.py PORT PATH IMAGE... --concurrency 8 --seconds 10

Closed loop: each of `--concurrency` persistent connections sends the next image as soon as it has the last response.
Open loop: with `--rate`, requests start at fixed times, whether or not earlier ones are answered; each takes an idle
connection or opens one, and its latency counts from the time at which it was due.
Requests are encoded before the clock starts, and responses are parsed after it stops, so that the client uses little of
the cores that it shares with the server. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

__all__ = ["make_request"]

MAX_CONNECTIONS = 512  # in the open loop


def make_request(port: int, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/jpeg\r\nAccept: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A persistent connection with at most one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._length = -1  # of head and body in bytes; -1 until the head has arrived
        self._number, self._start = -1, 0.0  # index and start time of the current request; index -1: none

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._load.connected(self)

    def send(self, number: int, start: float) -> None:
        self._number, self._start, self._buffer, self._length = number, start, b"", -1
        self._transport.write(self._load.requests[number % len(self._load.requests)])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            self._length = end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self._buffer) < self._length:
            return
        status = int(self._buffer[9:12])
        body = self._buffer.partition(b"\r\n\r\n")[2]
        number, self._number = self._number, -1
        self._load.answered(self, number, self._start, status, body)

    def connection_lost(self, reason: Exception | None) -> None:
        self._load.lost(self, self._number >= 0)


class Load:
    """Sends requests and records when they are answered.

    Args:
        requests: complete HTTP requests, which are sent in turn.
        concurrency: number of connections of the closed loop.
        rate: requests per second of the open loop; 0 for the closed loop.
        seconds, warm_seconds: duration of the measurement, and of the warm-up before it.
        count: number of requests after which it ends in any case.
    """

    def __init__(
        self, requests: list[bytes], concurrency: int, rate: float, seconds: float, warm_seconds: float, count: int
    ) -> None:
        self.requests, self.concurrency, self.rate = requests, concurrency, rate
        self.seconds, self.warm_seconds, self.count = seconds, warm_seconds, count
        self.num_sent = self.num_failed = self.num_in_progress = self.num_connections = 0
        self.latencies: list[float] = []  # seconds, of responses with status 200
        self.bodies: list[set[bytes]] = [set() for _ in requests]
        self.reasons: dict[str, int] = {}  # number of failures for each reason
        self._idle: list[Connection] = []
        self._due: list[tuple[int, float]] = []  # requests of the open loop without a connection

    async def run(self, port: int) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        self._port, self._loop, self._done = port, loop, asyncio.Event()
        self._begin = time.perf_counter()
        self._counts_from, self._end = self._begin + self.warm_seconds, self._begin + self.warm_seconds + self.seconds
        if self.rate:
            await self._open_loop()
        else:
            for _ in range(self.concurrency):
                self._connect()
        await self._done.wait()
        last = min(time.perf_counter(), self._end)
        return {
            "seconds": last - self._counts_from,
            "num_sent": self.num_sent,
            "latencies": self.latencies,
            "failed": self.num_failed,
            "reasons": self.reasons,
            "answers": [[json.loads(body) for body in bodies] for bodies in self.bodies],
        }

    async def _open_loop(self) -> None:
        due = time.perf_counter()
        while due < self._end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if self._idle:
                self._send(self._idle.pop(), due)
            else:
                self._due.append((self.num_sent, due))
                if self.num_connections < MAX_CONNECTIONS:
                    self._connect()
            due += 1 / self.rate
        self._finish_if_done()

    def _connect(self) -> None:
        self.num_connections += 1
        task = self._loop.create_task(self._loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port))
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[Any]) -> None:
        if (reason := task.exception()) is not None:
            self.num_connections -= 1
            self._failed(repr(reason))
            if not self.rate and not self.num_connections:
                self._done.set()  # the server is gone

    def connected(self, connection: Connection) -> None:
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        if not self.rate:
            if self._is_over():
                self._finish_if_done()
            else:
                self._send(connection, time.perf_counter())
        elif self._due:
            self._send(connection, self._due.pop(0)[1])
        else:
            self._idle.append(connection)
            self._finish_if_done()

    def _is_over(self) -> bool:
        return time.perf_counter() >= self._end or self.num_sent >= self.count

    def _send(self, connection: Connection, start: float) -> None:
        number, self.num_sent, self.num_in_progress = self.num_sent, self.num_sent + 1, self.num_in_progress + 1
        connection.send(number, start)

    def answered(self, connection: Connection, number: int, start: float, status: int, body: bytes) -> None:
        now = time.perf_counter()
        self.num_in_progress -= 1
        if status != 200:
            self._failed(f"{status} {body[:200].decode(errors='replace')}")
        elif self._counts_from <= (start if self.rate else now) and (self.rate or now <= self._end):
            self.latencies.append(now - start)
            self.bodies[number % len(self.requests)].add(body)
        self._next(connection)

    def lost(self, connection: Connection, is_inside: bool) -> None:
        self.num_connections -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if is_inside:
            self.num_in_progress -= 1
            self._failed("connection lost")
        if not self.rate and not self._is_over():
            self._connect()
        self._finish_if_done()

    def _failed(self, reason: str) -> None:
        self.num_failed += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def _finish_if_done(self) -> None:
        if self._is_over() and not self.num_in_progress and not self._due:
            self._done.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-seconds", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=2**62)
    arguments = parser.parse_args()
    load = Load(
        [make_request(arguments.port, arguments.path, image.read_bytes()) for image in arguments.images],
        arguments.concurrency,
        arguments.rate,
        arguments.seconds,
        arguments.warm_seconds,
        arguments.count,
    )
    print(json.dumps(asyncio.run(load.run(arguments.port))))


if __name__ == "__main__":
    main()
