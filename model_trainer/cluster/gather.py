"""The server side of the rendezvous: the first process collects the addresses of all and sends the list to each.

Each of the others sends one line of JSON, its report, and waits for one line, the list. Any program that finds the port
may connect: it has 4 KiB and 10 s for a report, and an invalid line closes its connection without affecting the others.
If there are too many connections, the oldest without a report is closed.
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

PROTOCOL = "model-trainer-hosts-1"  # distinguishes our JSON from that of other programs
REPORT_BYTES = 4096  # maximum; a report has about 100
REPORT_SECONDS = 10.0  # a report is sent right after connecting; a process that was too slow reconnects
ANSWER_SECONDS = 10.0
MAX_UNKNOWN = 256  # simultaneous connections in addition to those of the run
BACKLOG = 1024  # connections that wait to be accepted, since all may arrive at the same moment
ACCEPTED = 16  # accepted at once, before `MAX_UNKNOWN` is checked; asyncio copes badly with too many open files


@dataclass(frozen=True)
class Reported:
    """The report of a process, and the address at which it reached the first one."""

    rank: int
    host: str  # its own IP address on the connection
    port: int
    reached: str  # the first process's IP address on the connection


def listen(port: int) -> socket.socket:
    """Listens on `port` of all network interfaces, IPv6 and IPv4.

    Raises:
        ConfigError: another program uses the port, or this user may not use it.
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
        except ValueError as error:  # this Python has no dual-stack sockets
            problem = str(error)
    raise ConfigError(f"is {port}, where this machine cannot listen: {problem}.", "MASTER_PORT")


async def gather(
    listener: socket.socket, master: str, master_port: int, size: int, own_port: int, timeout_seconds: float
) -> tuple[str, ...]:
    """Waits for the reports of the other `size` - 1 processes, and sends each of them the addresses of all.

    Args:
        listener: from `listen`; closed at the end.
        master: the configured name or address of this process.
        master_port: the port of `listener`.
        size: number of processes, including this one.
        own_port: this process's port for training.
        timeout_seconds: how long to wait for all of them.

    Returns:
        The addresses by rank.

    Raises:
        HostError: not all reported in time.
        ConfigError: two have the same rank, or they do not agree on `size`.
    """
    callers = _Callers(size)
    server = await asyncio.start_server(callers.accept, sock=listener, limit=REPORT_BYTES, backlog=ACCEPTED)
    listener.listen(BACKLOG)  # asyncio's `backlog` also is the number of connections that it accepts at once
    try:
        await asyncio.wait([callers.complete], timeout=timeout_seconds)
    finally:
        server.close()
    if not callers.complete.done():
        reported = {report.rank for report in callers.reports.values()}
        missing = _missing([rank for rank in range(1, size) if rank not in reported], master, master_port, size)
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
    """Addresses by which every process can reach every other, by rank.

    A process on the first one's machine may have reached it as 127.0.0.1, which for the others is another machine; it
    gets the address at which they reached the first one.
    """
    reports = sorted(reports, key=lambda report: report.rank)
    first = next((report.reached for report in reports if not _is_loopback(report.reached)), master)
    addresses = [joined_address(first if _is_loopback(report.host) else report.host, report.port) for report in reports]
    return (joined_address(first, own_port), *addresses)


def to_line(content: Mapping[str, Any]) -> bytes:
    """Encodes `content` as a line that `parse_line` decodes."""
    return json.dumps({"protocol": PROTOCOL, **content}).encode() + b"\n"


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Decodes a line of `to_line`; None for anything else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("protocol") == PROTOCOL else None


def plain_host(host: str) -> str:
    """Normalizes an IP address: an IPv4-mapped IPv6 address, as dual-stack sockets report it, becomes IPv4."""
    mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    return str(mapped or host)


class _Callers:
    """The connections to the first process, and their reports.

    `complete` is set to the reports of all others once the last has arrived, or to a ConfigError if two contradict each
    other.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.connected: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        self.reports: dict[asyncio.StreamWriter, Reported] = {}
        self.complete: asyncio.Future[dict[asyncio.StreamWriter, Reported]] = asyncio.Future()
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio has only weak references to tasks

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accepts a new connection. Not a coroutine, because Python 3.11 would log an error when it is cancelled."""
        self.connected[writer] = None
        if len(self.connected) > self.size + MAX_UNKNOWN:
            oldest = next(caller for caller in self.connected if caller not in self.reports)
            del self.connected[oldest]
            oldest.close()
        task = asyncio.create_task(self._read_report(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_report(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                line = await reader.readuntil()
            if self._add_report(line, writer):
                await reader.read(1)  # waits for the end of the connection
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # it has disconnected, is too slow, or sends more than a report
        finally:
            self.connected.pop(writer, None)
            self.reports.pop(writer, None)
            writer.close()

    def _add_report(self, line: bytes, writer: asyncio.StreamWriter) -> bool:
        """Adds a report, which is valid while the connection is open; returns whether `line` is one."""
        match parse_line(line):
            case {"rank": int(rank), "size": int(size), "host": str(host), "port": int(port)}:
                if not (_is_ip(host) and 0 < port < 65536):
                    return False
            case _:
                return False
        if self.complete.done():
            return True
        same_rank = [writer for writer, report in self.reports.items() if report.rank == rank]
        for disconnected in filter(_has_disconnected, same_rank):
            del self.reports[disconnected]
        peer, own = (plain_host(writer.get_extra_info(name)[0]) for name in ("peername", "sockname"))
        problem = self._contradiction(rank, size, peer)
        if problem:
            problem = f"cannot connect the processes: {problem}"
            self.complete.set_exception(ConfigError(problem, "MASTER_ADDR"))
            return True
        self.reports[writer] = Reported(rank, host, port, reached=own)
        if len(self.reports) == self.size - 1:
            self.complete.set_result(dict(self.reports))
        return True

    def _contradiction(self, rank: int, size: int, host: str) -> str:
        """How a report contradicts the configuration of the first process, or another report; empty if not."""
        if size != self.size:
            return f"{host} expects {size} processes, the first one {self.size}. Give all the same number."
        if not 0 < rank < size:
            return f"{host} has rank {rank}; the first one has 0, the others have 1 to {size - 1}, each its own."
        if any(report.rank == rank for report in self.reports.values()):
            return f"two processes have rank {rank}, one of them on {host}. Give each its own rank."
        return ""


def _has_disconnected(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has closed; a restarted process may reconnect before asyncio notices."""
    with writer.get_extra_info("socket").dup() as connection:
        try:
            return not connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


async def _answer(writers: Iterable[asyncio.StreamWriter], content: Mapping[str, Any]) -> None:
    """Sends one line to each and disconnects. A process that is gone by now will be noticed when training starts."""
    line = to_line(content)
    await asyncio.gather(*(_send(writer, line) for writer in tuple(writers)))


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(line)
            writer.close()
            await writer.wait_closed()  # `drain` would leave up to 64 KiB unsent when the loop ends
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass


def _missing(ranks: list[int], master: str, master_port: int, size: int) -> HostError:
    missing = ", ".join(map(str, ranks[:10])) + " ..." * (len(ranks) > 10)
    return HostError(
        f"The first process, {joined_address(master, master_port)}, has not been reached by rank {missing}. Start all "
        f"{size} processes with the same MASTER_ADDR and MASTER_PORT, and open the port in firewalls."
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback
