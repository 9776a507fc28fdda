"""Processes that know only the first one's address meet there, and each learns the addresses of all.

The first process listens at a known address; each of the others sends one line of JSON with its number and its own
address, and waits. When all have come, each gets one line with the list. A line that is no such report, from a port
scanner or another program, is dropped and hinders nobody. Like TensorFlow's own connections this has neither password
nor encryption, so it is meant for a network in which the machines trust each other.
"""

from __future__ import annotations

import errno
import random
import socket
import time

from absl import logging

from model_trainer.cluster.gather import gather, listen
from model_trainer.cluster.hosts import joined_address
from model_trainer.cluster.lines import own_host, parse_line, to_line
from model_trainer.errors import ConfigError, HostError

__all__ = ["meet"]

OWN_PORTS = range(20_000, 30_000)  # below those that Linux hands out by itself, which might go to another program
LIST_BYTES = 1 << 20  # a list has about 30 for each process
CONNECT_SECONDS = 10.0  # after so long without an answer the first process is called again
LONGEST_PAUSE_SECONDS = 1.0


def meet(master: str, master_port: int, rank: int, size: int, *, timeout_seconds: float) -> tuple[str, ...]:
    """Waits until all processes have come; their addresses, by rank.

    Args:
        master: name or IP address of the process with rank 0, without brackets.
        master_port: where it listens while the processes meet.
        rank: this process's own number, 0 to `size` - 1.
        size: number of processes, at least 2.
        timeout_seconds: how long to wait for all of them.

    Returns:
        Such as `("10.0.0.1:20417", "10.0.0.2:28113")`, the same for every process. The host is the address from which a
        process reached the first one; the port is free until something else takes it.

    Raises:
        HostError: the others did not come in time; exit code 75.
        ConfigError: two have the same rank, they do not agree on `size`, or another program has the port.
    """
    deadline = time.monotonic() + timeout_seconds
    with _free_port() as own:  # held until all have chosen, so that no two on one machine choose the same
        own_port = int(own.getsockname()[1])
        if rank != 0:
            return _report(master, master_port, rank, size, own_port, deadline)
        with listen(master_port) as listener:
            logging.info("Waiting for %d other process%s at port %d.", size - 1, "es" * (size > 2), master_port)
            return gather(listener, master, master_port, size, own_port, deadline)


def _report(master: str, master_port: int, rank: int, size: int, own_port: int, deadline: float) -> tuple[str, ...]:
    where = joined_address(master, master_port)
    pause, reason = 0.05, ""
    while (remaining := deadline - time.monotonic()) > 0:
        before, answer = reason, b""
        try:
            with socket.create_connection((master, master_port), timeout=min(remaining, CONNECT_SECONDS)) as connection:
                if connection.getsockname() == connection.getpeername():  # Linux: nobody listens, so it met itself
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
                report = {"rank": rank, "size": size, "host": own_host(connection), "port": own_port}
                connection.sendall(to_line(report))
                answer = _read_line(connection, deadline)
            reason = "it closed the connection"
        except OSError as error:
            reason = error.strerror or str(error)
        if answer:
            return _list_in(answer, where, size)
        # It may not have been started yet, or its name may not be known yet; then it is called again.
        if reason != before:
            logging.info("Waiting for the process with rank 0 at %s (%s).", where, reason)
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    raise HostError(
        f"Rank {rank} has got no list of the processes from the first one, {where} ({reason or 'no time was left'}). "
        f"Start all {size} of them with the same MASTER_ADDR and MASTER_PORT, the one with rank 0 there, and let the "
        "port through firewalls."
    )


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """One line; empty when the other side closed before its end."""
    received = bytearray()
    while not received.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(65536)
        if not part:
            return b""
        received += part
        if len(received) > LIST_BYTES:
            break
    return bytes(received)


def _list_in(answer: bytes, where: str, size: int) -> tuple[str, ...]:
    match parse_line(answer):
        case {"error": str(problem)}:
            raise ConfigError(problem, "MASTER_ADDR")
        case {"missing": str(problem)}:
            raise HostError(problem)
        case {"addresses": [*addresses]} if len(addresses) == size and all(isinstance(one, str) for one in addresses):
            return tuple(addresses)
    raise ConfigError(
        f"and MASTER_ADDR are {where}, where another program than Model Trainer answers. Give a free port of that "
        "machine, the same for all processes.",
        "MASTER_PORT",
    )


def _free_port() -> socket.socket:
    """A socket that holds a port which was free on every network of this machine."""
    for port in random.sample(OWN_PORTS, 100):
        held = socket.socket()
        try:
            held.bind(("", port))
        except OSError:
            held.close()
            continue
        return held
    raise ConfigError(f"Training needs a free port from {OWN_PORTS[0]} to {OWN_PORTS[-1]}; 100 tries found none.")
