"""Rendezvous: processes that know only the first one's address connect to it, and get the addresses of all.

The first process listens at a known address (`gather.py`); each of the others sends one line of JSON with its rank and
its own address, and waits. When all have connected, each gets one line with the list. Like TensorFlow's own connections
this has neither password nor encryption, so it is meant for a network in which the machines trust each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import queue
import random
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from absl import logging

from model_trainer.cluster.gather import gather, listen, parse_line, plain_host, to_line
from model_trainer.cluster.hosts import Hosts, joined_address, split_address
from model_trainer.errors import ConfigError, HostError

__all__ = ["assemble", "meet"]

OWN_PORTS = range(20_000, 30_000)  # below Linux' ephemeral ports, which another program might get
LIST_BYTES = 1 << 20  # maximum size of the list, which has about 30 bytes for each process
CONNECT_SECONDS = 10.0  # timeout of one attempt to connect to the first process
MAX_PAUSE_SECONDS = 1.0
SIGNAL_SECONDS = 0.5  # how late a signal may be handled

T = TypeVar("T")


def meet(master: str, master_port: int, rank: int, size: int, *, timeout_seconds: float) -> tuple[str, ...]:
    """Waits until all processes have connected, and exchanges their addresses.

    Args:
        master: name or IP address of the process with rank 0, without brackets.
        master_port: port on which it listens for the rendezvous.
        rank: rank of this process, 0 to `size` - 1.
        size: number of processes, at least 2.
        timeout_seconds: how long to wait for all of them.

    Returns:
        The addresses by rank, such as `("10.0.0.1:20417", "10.0.0.2:28113")`, the same in every process. The host is
        the address from which a process reached the first one; the port was free on its machine.

    Raises:
        HostError: not all processes connected in time; exit code 75.
        ConfigError: two have the same rank, they do not agree on `size`, or another program uses the port.
    """
    with _free_port() as reserved:  # until all have chosen, so that no two on one machine choose the same
        own_port = int(reserved.getsockname()[1])
        if rank != 0:
            return _run(_report(master, master_port, rank, size, own_port, timeout_seconds))
        with listen(master_port) as listener:
            logging.info("Waiting for %d other process%s on port %d.", size - 1, "es" * (size > 2), master_port)
            return _run(gather(listener, master, master_port, size, own_port, timeout_seconds))


def assemble(hosts: Hosts, timeout_seconds: float) -> None:
    """Barrier for processes whose addresses are all known: waits at the first one's address until all have connected.

    Raises:
        HostError: not all connected in time; the message names the missing ones.
        ConfigError: a port is in use, or two processes have the same index.
    """
    _, own_port = split_address(hosts.addresses[hosts.index], hosts.source)
    _check_free(own_port, hosts)
    master, port = split_address(hosts.addresses[0], hosts.source)
    try:
        meet(master, port, hosts.index, len(hosts), timeout_seconds=timeout_seconds)
    except ConfigError as error:
        raise ConfigError(f"{hosts.describe()}: the hosts cannot meet at {hosts.addresses[0]}: {error}") from error
    except HostError as error:
        raise HostError(f"{hosts.describe()}: {error}") from error


async def _report(
    master: str, master_port: int, rank: int, size: int, own_port: int, timeout_seconds: float
) -> tuple[str, ...]:
    """Sends this process's address to the first one and waits for the list; reconnects until it answers."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_seconds
    where = joined_address(master, master_port)
    pause, reason = 0.05, ""
    while clock() < deadline:
        before = reason
        try:
            reader, writer = await _connect(master, master_port, deadline)
            with contextlib.closing(writer):
                host = plain_host(writer.get_extra_info("sockname")[0])
                writer.write(to_line({"rank": rank, "size": size, "host": host, "port": own_port}))
                async with asyncio.timeout_at(deadline):
                    return _parse_answer(await reader.readuntil(), where, size)
        except asyncio.LimitOverrunError:
            return _parse_answer(b"", where, size)
        except EOFError:
            reason = "it closed the connection"
        except OSError as error:
            reason = _reason(error)
        # It may not have been started yet, or its name may not resolve yet, so this tries again.
        if reason != before:
            logging.info("Waiting for the process with rank 0 at %s (%s).", where, reason)
        await asyncio.sleep(max(0.0, min(pause, deadline - clock())))
        pause = min(2 * pause, MAX_PAUSE_SECONDS)
    raise HostError(
        f"Rank {rank} has received no list of processes from the first one, {where} ({reason or 'no time was left'}). "
        f"Start all {size} of them with the same MASTER_ADDR and MASTER_PORT, the one with rank 0 there, and open the "
        "port in firewalls."
    )


async def _connect(host: str, port: int, deadline: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Tries each address of `host` for a few seconds, as `socket.create_connection` does.

    Raises:
        OSError: the error of the last address; asyncio would concatenate the errors of all.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout_at(deadline):
        resolved = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem = OSError(f"{host} has no address")
    for *_, address in resolved:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + CONNECT_SECONDS)):
                reader, writer = await asyncio.open_connection(str(address[0]), port, limit=LIST_BYTES)
        except OSError as error:
            problem = error
            continue
        if writer.get_extra_info("sockname") != writer.get_extra_info("peername"):
            return reader, writer
        writer.close()  # on Linux, if no process listens, a socket can connect to itself
        problem = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    raise problem


def _reason(error: OSError) -> str:
    """The operating system's message, without the address that asyncio adds."""
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error) or "timed out"


def _parse_answer(answer: bytes, where: str, size: int) -> tuple[str, ...]:
    match parse_line(answer):
        case {"error": str(problem)}:
            raise ConfigError(problem, "MASTER_ADDR")
        case {"missing": str(problem)}:
            raise HostError(problem)
        case {"addresses": [*addresses]} if len(addresses) == size and all(isinstance(one, str) for one in addresses):
            return tuple(addresses)
    raise ConfigError(
        f"and MASTER_ADDR are {where}, where a program other than Model Trainer answers. Give a free port of that "
        "machine, the same for all processes.",
        "MASTER_PORT",
    )


def _run(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` in a separate thread, and cancels it if a signal handler raises in this thread.

    In the main thread a signal handler that raises, as that of training does, might do so within a callback of asyncio,
    which logs the error and continues. In a notebook the main thread has a running event loop already.
    """
    cancel: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    async def cancellable() -> T:
        task = asyncio.ensure_future(main)
        cancel.put(functools.partial(task.get_loop().call_soon_threadsafe, task.cancel))
        return await task

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, cancellable())
        try:
            # A signal that comes just before the wait does not interrupt it; its handler runs at the next turn.
            while not running.done():
                wait([running], SIGNAL_SECONDS)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # it has just ended
                cancel.get()()
            raise
        return running.result()


def _free_port() -> socket.socket:
    """A socket that reserves a port that was free on all network interfaces."""
    for port in random.sample(OWN_PORTS, 100):
        reserved = socket.socket()
        try:
            reserved.bind(("", port))
        except OSError:
            reserved.close()
            continue
        return reserved
    raise ConfigError(f"Training needs a free port from {OWN_PORTS[0]} to {OWN_PORTS[-1]}; 100 tries found none.")


def _check_free(port: int, hosts: Hosts) -> None:
    try:
        with socket.create_server(("", port)):
            pass
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return  # TensorFlow may listen elsewhere
        raise ConfigError(
            f"{hosts.describe()}: port {port} of this machine is in use, by another program or by a process with the "
            "same index. Give each process a free port and its own index."
        ) from None
