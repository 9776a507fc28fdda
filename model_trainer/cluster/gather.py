"""The first process of those that meet: hears where each of the others is, and tells all of them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import selectors
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from model_trainer.cluster.hosts import joined_address
from model_trainer.cluster.lines import own_host, parse_line, plain_host, to_line
from model_trainer.errors import ConfigError, HostError

__all__ = ["Reported", "addresses_by_rank", "gather", "listen"]

REPORT_BYTES = 4096  # a report has about 100
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Reported:
    """What one process has said, and how it reached the first one."""

    rank: int
    host: str  # its own IP address on the connection
    port: int
    reached: str  # the first process's IP address on the connection


@dataclass
class _Caller:
    """One connection to the first process."""

    socket: socket.socket
    host: str  # the other side's IP address
    received: bytearray = field(default_factory=bytearray)
    report: Reported | None = None


def listen(port: int) -> socket.socket:
    """Listens at `port` on every network, IPv6 and IPv4.

    Raises:
        ConfigError: another program has the port, or this user may not take it.
    """
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise _taken(port) from None
    try:
        return socket.create_server(("", port), backlog=1024)  # a machine without IPv6
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(port) from None
        raise ConfigError(f"is {port}, where this machine cannot listen: {error.strerror}.", "MASTER_PORT") from None


def gather(
    listener: socket.socket, master: str, master_port: int, size: int, own_port: int, deadline: float
) -> tuple[str, ...]:
    """Waits until `size` - 1 processes have reported; sends each the addresses of all, by rank, and returns them.

    Args:
        listener: as `listen` gave it.
        master: this process's name or address, as it was told.
        master_port: where `listener` listens.
        size: number of processes, this one included.
        own_port: this process's own port, for training.
        deadline: by `time.monotonic()`.

    Raises:
        HostError: not all came in time.
        ConfigError: two have the same rank, or they do not agree on `size`.
    """
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as closing:
        selector.register(listener, selectors.EVENT_READ)
        try:
            reports = _reports(selector, listener, closing, master, master_port, size, deadline)
        except HostError as error:
            _answer_all(selector, listener, to_line({"missing": str(error)}))
            raise
        except ConfigError as error:
            _answer_all(selector, listener, to_line({"error": error.problem}))
            raise
        addresses = addresses_by_rank(reports, master, own_port)
        for key in selector.get_map().values():
            if key.fileobj is not listener and key.data.report in reports:
                _answer(key.data.socket, to_line({"addresses": addresses}))
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


def _reports(
    selector: selectors.BaseSelector,
    listener: socket.socket,
    closing: contextlib.ExitStack,
    master: str,
    master_port: int,
    size: int,
    deadline: float,
) -> list[Reported]:
    came: dict[int, _Caller] = {}
    while len(came) < size - 1:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise _missing([rank for rank in range(1, size) if rank not in came], master, master_port, size)
        for key, _ in selector.select(remaining):
            if key.fileobj is listener:
                with contextlib.suppress(OSError):  # it has gone again
                    connection, peer = listener.accept()
                    connection.setblocking(False)
                    closing.enter_context(connection)
                    selector.register(connection, selectors.EVENT_READ, _Caller(connection, plain_host(peer[0])))
            elif not _heard(key.data, came, size):
                selector.unregister(key.fileobj)
                key.data.socket.close()
                came = {rank: caller for rank, caller in came.items() if caller is not key.data}
    return [caller.report for caller in came.values() if caller.report]


def _heard(caller: _Caller, came: dict[int, _Caller], size: int) -> bool:
    """Takes in what has come from `caller`; whether to go on listening to it.

    Raises:
        ConfigError: what it says contradicts what the first process was told, or another process.
    """
    try:
        received = caller.socket.recv(REPORT_BYTES)
    except BlockingIOError:
        return True
    except OSError:
        return False
    caller.received += received
    if not received or caller.report or len(caller.received) > REPORT_BYTES:
        return False
    if not caller.received.endswith(b"\n"):
        return True
    match parse_line(bytes(caller.received)):
        case {"rank": int(rank), "size": int(their_size), "host": str(host), "port": int(port)}:
            if not (_is_ip(host) and 0 < port < 65536):
                return False
        case _:
            return False
    problem = ""
    if their_size != size:
        problem = (
            f"{caller.host} was told of {their_size} processes, the first one of {size}. Give all the same number."
        )
    elif not 0 < rank < size:
        problem = f"{caller.host} has rank {rank}; the first one has 0, the others have 1 to {size - 1}, each its own."
    elif rank in came and not _has_left(came[rank]):
        problem = f"two processes have rank {rank}, one of them on {caller.host}. Give each its own."
    if problem:
        raise ConfigError(f"cannot bring the processes together: {problem}", "MASTER_ADDR")
    caller.report = Reported(rank, host, port, own_host(caller.socket))
    came[rank] = caller
    return True


def _has_left(caller: _Caller) -> bool:
    """Whether the other side has closed; it may have been restarted, and have come again before we heard of it."""
    try:
        return not caller.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _answer_all(selector: selectors.BaseSelector, listener: socket.socket, line: bytes) -> None:
    for key in selector.get_map().values():
        if key.fileobj is not listener:
            _answer(key.data.socket, line)


def _answer(connection: socket.socket, line: bytes) -> None:
    with contextlib.suppress(OSError):  # who has gone by now will be missed when training begins
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(line)


def _missing(ranks: list[int], master: str, master_port: int, size: int) -> HostError:
    named = ", ".join(map(str, ranks[:10])) + " ..." * (len(ranks) > 10)
    return HostError(
        f"The first process, {joined_address(master, master_port)}, has waited in vain for rank {named}. Start all "
        f"{size} processes with the same MASTER_ADDR and MASTER_PORT, and let the port through firewalls."
    )


def _taken(port: int) -> ConfigError:
    return ConfigError(
        f"is {port}, which another program uses on this machine, perhaps another training. Give a free port, the same "
        "for all processes.",
        "MASTER_PORT",
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_ip(host) and ipaddress.ip_address(host).is_loopback
