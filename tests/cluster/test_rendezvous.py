"""Processes find each other at the first one's address, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from model_trainer.cluster.gather import to_line
from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.launchers import find_hosts
from model_trainer.cluster.rendezvous import assemble, meet
from model_trainer.errors import ConfigError, HostError, StoppedError
from model_trainer.testing import free_addresses
from model_trainer.training.signals import end_on_signals

SECONDS = 30.0  # a timeout that no test reaches: the other side always acts earlier


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def join(port: int, rank: int, size: int, seconds: float = SECONDS) -> tuple[str, ...]:
    return meet("127.0.0.1", port, rank, size, timeout_seconds=seconds)


def test_all_processes_get_the_same_list_in_the_order_of_their_ranks() -> None:
    port = free_port()
    with ThreadPoolExecutor(5) as pool:
        lists = list(pool.map(lambda rank: join(port, rank, 5), (3, 1, 4, 2, 0)))  # the first process joins last
    assert len(set(lists)) == 1
    addresses = lists[0]
    assert len(set(addresses)) == 5
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}


def test_real_processes_find_each_other_through_the_variables_of_open_mpi() -> None:
    program = (
        "import os; from model_trainer.cluster.launchers import find_hosts; "
        "hosts = find_hosts(None, None, os.environ, timeout_seconds=60); print(hosts.index, *hosts.addresses)"
    )
    port = str(free_port())
    common = {name: value for name, value in os.environ.items() if name not in ("TF_CONFIG", "RANK", "WORLD_SIZE")}
    common |= {"OMPI_COMM_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**common, "OMPI_COMM_WORLD_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("1", "0")
    ]
    try:
        second, first = (process.communicate(timeout=60)[0].split() for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert (first[0], second[0]) == ("0", "1")
    assert first[1:] == second[1:]
    assert len(first[1:]) == 2


def test_processes_with_plain_variables_and_of_torchrun_meet_at_a_free_port() -> None:
    port = free_port()
    environ = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def start_two(**more: str) -> list[Hosts | None]:
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(find_hosts, None, None, {**environ, **more, "RANK": rank}) for rank in "01"]
            return [one.result() for one in waiting]

    first, second = start_two()
    assert first is not None
    assert second is not None
    assert (first.index, second.index, first.addresses) == (0, 1, second.addresses)
    with socket.create_server(("127.0.0.1", port)):  # torchrun's own store
        agents = start_two(TORCHELASTIC_RUN_ID="1", TORCHELASTIC_USE_AGENT_STORE="True")
    assert [agent and agent.source for agent in agents] == ["torchrun", "torchrun"]


def outcome(waiting: Future[tuple[str, ...]]) -> ConfigError:
    error = waiting.exception(SECONDS)
    assert isinstance(error, ConfigError)
    return error


def test_a_process_that_learns_of_missing_ones_ends_with_the_same_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(join, int(server.getsockname()[1]), 1, 3)
        connection, _ = server.accept()
        with connection:
            connection.sendall(to_line({"missing": "Nobody came."}))
            assert str(waiting.exception(SECONDS)) == "Nobody came."
            assert isinstance(waiting.exception(), HostError)


def test_a_missing_first_process_is_named() -> None:
    port = free_port()
    with pytest.raises(HostError, match=rf"from the first one, 127\.0\.0\.1:{port} \(Connection refused\)"):
        join(port, 1, 2, 0.1)


def test_a_port_of_another_program_is_named() -> None:
    with socket.create_server(("", 0)) as held:
        port = int(held.getsockname()[1])
        with pytest.raises(ConfigError, match=f"`MASTER_PORT` is {port}, which another program uses"):
            join(port, 0, 2)


def test_an_answer_of_another_program_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(join, int(server.getsockname()[1]), 1, 2)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            assert "a program other than Model Trainer answers" in str(outcome(waiting))


def test_a_connection_that_the_first_process_closes_is_retried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        port = int(server.getsockname()[1])
        waiting = pool.submit(join, port, 1, 2)
        for answer in (b"", b"half of a line", to_line({"addresses": ["a:1", "b:1"]})):
            connection, _ = server.accept()
            with connection, connection.makefile() as lines:
                assert json.loads(lines.readline())["rank"] == 1
                connection.sendall(answer)
        assert waiting.result(SECONDS) == ("a:1", "b:1")


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(join, int(server.getsockname()[1]), 1, 2)
        connection, _ = server.accept()
        with connection, contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(b"x" * 65536)
        assert "a program other than Model Trainer answers" in str(outcome(waiting))


def test_a_signal_ends_the_wait() -> None:
    def interrupt(server: socket.socket) -> bytes:
        connection, _ = server.accept()
        connection.settimeout(SECONDS)
        with connection, connection.makefile("rb") as lines:
            lines.readline()
            os.kill(os.getpid(), signal.SIGUSR1)
            return lines.read()

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool, end_on_signals():
        ending = pool.submit(interrupt, server)
        with pytest.raises(StoppedError, match="SIGUSR1 came before the first step"):
            join(int(server.getsockname()[1]), 1, 2, 2 * SECONDS)
        assert ending.result(SECONDS) == b""  # this process has closed its connection


def test_processes_meet_also_inside_a_running_event_loop_as_in_a_notebook() -> None:
    async def cell(rank: int) -> tuple[str, ...]:
        return join(port, rank, 2)

    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda rank: asyncio.run(cell(rank)), (0, 1))
    assert first == second


def test_hosts_with_known_addresses_continue_when_all_have_joined() -> None:
    addresses = free_addresses(3)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(assemble, Hosts(addresses, index, "the test"), 60.0) for index in range(3)]
        assert [each.result() for each in waiting] == [None, None, None]


def test_the_own_port_in_use_by_another_program_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        hosts = Hosts((f"127.0.0.1:{port}", *free_addresses(1)), 0, "the test")
        with pytest.raises(ConfigError, match=f"port {port} of this machine is in use, by another"):
            assemble(hosts, 60.0)


@pytest.mark.parametrize("index", [0, 1])
def test_a_timeout_names_the_missing_hosts(index: int) -> None:
    with pytest.raises(HostError, match=r"^host [01] of 2 .*: .*(not been reached by rank 1|from the first one)"):
        assemble(Hosts(free_addresses(2), index, "the test"), 0.1)
