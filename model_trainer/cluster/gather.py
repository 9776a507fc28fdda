"""The first process of those that meet: hears where each of the others is, and tells all of them.

Each of the others sends one line of JSON, its report, and waits for one, the list. Anything that finds the port may
connect: it has 4 KiB and 10 s for a report, and a line that is none ends its connection and hinders nobody. Of too many
connections the oldest without a report is closed.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from model_trainer.cluster.hosts import joined_address
from model_trainer.errors import ConfigError, HostError

__all__ = ["Reported", "addresses_by_rank", "gather", "listen", "parse_line", "plain_host", "to_line"]

PROTOCOL = "model-trainer-hosts-1"  # so that JSON of another program is not taken for ours
REPORT_BYTES = 4096  # a report has about 100
REPORT_SECONDS = 10.0  # it is sent as soon as there is a connection; who was too slow calls again
ANSWER_SECONDS = 10.0
STRANGERS = 256  # connections at once, beside those of the run
BACKLOG = 1024  # connections that wait to be accepted, as all may come in the same moment
ACCEPTED = 16  # of them in one go; only then `STRANGERS` counts, and asyncio copes badly with too many open files


@dataclass(frozen=True)
class Reported:
    """What one process has said, and how it reached the first one."""

    rank: int
    host: str  # its own IP address on the connection
    port: int
    reached: str  # the first process's IP address on the connection


def listen(port: int) -> socket.socket:
    """Listens at `port` on every network, IPv6 and IPv4.

    Raises:
        ConfigError: another program has the port, or this user may not take it.
    """
    problem = ""
    for dual in (True, False):  # a machine may have no IPv6
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            return socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"is {port}, which another program uses on this machine, perhaps another training. Give a free "
                    "port, the same for all processes.",
                    "MASTER_PORT",
                ) from None
            problem = str(error.strerror)
        except ValueError as error:  # Python knows of no sockets for both
            problem = str(error)
    raise ConfigError(f"is {port}, where this machine cannot listen: {problem}.", "MASTER_PORT")


async def gather(
    listener: socket.socket, master: str, master_port: int, size: int, own_port: int, timeout_seconds: float
) -> tuple[str, ...]:
    """Waits until `size` - 1 processes have reported; sends each the addresses of all, by rank, and returns them.

    Args:
        listener: as `listen` gave it; closed at the end.
        master: this process's name or address, as it was told.
        master_port: where `listener` listens.
        size: number of processes, this one included.
        own_port: this process's own port, for training.
        timeout_seconds: how long to wait for all of them.

    Raises:
        HostError: not all came in time.
        ConfigError: two have the same rank, or they do not agree on `size`.
    """
    callers = _Callers(size)
    server = await asyncio.start_server(callers.accept, sock=listener, limit=REPORT_BYTES, backlog=ACCEPTED)
    listener.listen(BACKLOG)  # asyncio has one number for both
    try:
        await asyncio.wait([callers.complete], timeout=timeout_seconds)
    finally:
        server.close()
    if not callers.complete.done():
        came = {report.rank for report in callers.reports.values()}
        missing = _missing([rank for rank in range(1, size) if rank not in came], master, master_port, size)
        await _answer(callers.connected, {"missing": str(missing)})
        raise missing
    try:
        reports = callers.complete.result()
    except ConfigError as error:
        await _answer(callers.connected, {"error": error.problem})
        raise
    addresses = addresses_by_rank(reports.values(), master, own_port)
    await _answer(reports, {"addresses": addresses})
    return addresses


def addresses_by_rank(reports: Iterable[Reported], master: str, own_port: int) -> tuple[str, ...]:
    """Addresses that every process can use, the first process's own in front.

    A process on the first one's machine may have reached it by 127.0.0.1, which is another machine for the others; then
    it gets the address by which they reached the first one.
    """
    reports = sorted(reports, key=lambda report: report.rank)
    first = next((report.reached for report in reports if not _is_loopback(report.reached)), master)
    others = [joined_address(first if _is_loopback(report.host) else report.host, report.port) for report in reports]
    return (joined_address(first, own_port), *others)


def to_line(content: Mapping[str, Any]) -> bytes:
    """`content` as one line that `parse_line` reads."""
    return json.dumps({"protocol": PROTOCOL, **content}).encode() + b"\n"


def parse_line(line: bytes) -> dict[str, Any] | None:
    """What `to_line` was given, with the protocol's name; None for anything else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("protocol") == PROTOCOL else None


def plain_host(host: str) -> str:
    """An IP address as text; IPv4 inside IPv6, as a socket for both shows it, becomes IPv4."""
    mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    return str(mapped or host)


class _Callers:
    """The connections to the first process, and what has been reported on them.

    `complete` gets the reports of all others when the last has come, or a ConfigError when two contradict each other.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.connected: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        self.reports: dict[asyncio.StreamWriter, Reported] = {}
        self.complete: asyncio.Future[dict[asyncio.StreamWriter, Reported]] = asyncio.Future()
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task alive

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes in a new connection; no coroutine, as the task of one says on Python 3.11 that cancelling broke it."""
        self.connected[writer] = None
        if len(self.connected) > self.size + STRANGERS:
            oldest = next(caller for caller in self.connected if caller not in self.reports)
            del self.connected[oldest]
            oldest.close()
        task = asyncio.create_task(self._hear(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                line = await reader.readuntil()
            if self._take(line, writer):
                await reader.read(1)  # only the end of the connection is still to come
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # it has gone again, is too slow, or says more than a report has
        finally:
            self.connected.pop(writer, None)
            self.reports.pop(writer, None)
            writer.close()

    def _take(self, line: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether `line` is a report; what it says counts as long as the connection is open."""
        match parse_line(line):
            case {"rank": int(rank), "size": int(size), "host": str(host), "port": int(port)}:
                if not (_is_ip(host) and 0 < port < 65536):
                    return False
            case _:
                return False
        if self.complete.done():
            return True
        for before in [before for before, report in self.reports.items() if report.rank == rank and _has_left(before)]:
            del self.reports[before]
        peer, own = (plain_host(writer.get_extra_info(name)[0]) for name in ("peername", "sockname"))
        problem = self._contradiction(rank, size, peer)
        if problem:
            problem = f"cannot bring the processes together: {problem}"
            self.complete.set_exception(ConfigError(problem, "MASTER_ADDR"))
            return True
        self.reports[writer] = Reported(rank, host, port, reached=own)
        if len(self.reports) == self.size - 1:
            self.complete.set_result(dict(self.reports))
        return True

    def _contradiction(self, rank: int, size: int, host: str) -> str:
        """How a report contradicts what the first process was told, or another report; empty when it does not."""
        if size != self.size:
            return f"{host} was told of {size} processes, the first one of {self.size}. Give all the same number."
        if not 0 < rank < size:
            return f"{host} has rank {rank}; the first one has 0, the others have 1 to {size - 1}, each its own."
        if any(report.rank == rank for report in self.reports.values()):
            return f"two processes have rank {rank}, one of them on {host}. Give each its own."
        return ""


def _has_left(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has closed; it may have been restarted, and have come again before asyncio tells us."""
    with writer.get_extra_info("socket").dup() as connection:
        try:
            return not connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


async def _answer(writers: Iterable[asyncio.StreamWriter], content: Mapping[str, Any]) -> None:
    """Sends one line to each, and hangs up. Who has gone by now will be missed when training begins."""
    line = to_line(content)
    await asyncio.gather(*(_send(writer, line) for writer in tuple(writers)))


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(line)
            writer.close()
            await writer.wait_closed()  # `drain` would leave up to 64 KiB for a loop that is about to end
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass


def _missing(ranks: list[int], master: str, master_port: int, size: int) -> HostError:
    named = ", ".join(map(str, ranks[:10])) + " ..." * (len(ranks) > 10)
    return HostError(
        f"The first process, {joined_address(master, master_port)}, has waited in vain for rank {named}. Start all "
        f"{size} processes with the same MASTER_ADDR and MASTER_PORT, and let the port through firewalls."
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback
