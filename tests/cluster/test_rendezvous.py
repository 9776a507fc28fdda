"""Processes that know only the first one's address find each other, over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from model_trainer.cluster.gather import Reported, addresses_by_rank, gather, listen
from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.launchers import find_hosts
from model_trainer.cluster.lines import to_line
from model_trainer.cluster.rendezvous import meet
from model_trainer.errors import ConfigError, HostError

SECONDS = 30.0  # never waited for: every test ends by what the other side does


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def come(port: int, rank: int, size: int, seconds: float = SECONDS) -> tuple[str, ...]:
    return meet("127.0.0.1", port, rank, size, timeout_seconds=seconds)


def call(port: int) -> socket.socket:
    """A connection to the first process, as soon as it listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        except ConnectionRefusedError:
            continue


def report(**changes: object) -> bytes:
    """One line as another process sends it."""
    content = {"protocol": "model-trainer-hosts-1", "rank": 1, "size": 2, "host": "127.0.0.1", "port": 20001, **changes}
    return json.dumps(content).encode() + b"\n"


def test_all_processes_get_the_same_list_in_the_order_of_their_ranks() -> None:
    port = free_port()
    with ThreadPoolExecutor(5) as pool:
        lists = list(pool.map(lambda rank: come(port, rank, 5), (3, 1, 4, 2, 0)))  # the first one comes last
    assert len(set(lists)) == 1
    addresses = lists[0]
    assert len(set(addresses)) == 5
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}


def test_real_processes_meet_by_the_variables_of_a_launcher() -> None:
    program = (
        "import os; from model_trainer.cluster.launchers import find_hosts; "
        "found = find_hosts(None, None, os.environ, timeout_seconds=60); print(found.index, *found.addresses)"
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


def test_bare_variables_and_torchrun_meet_each_where_nobody_else_listens() -> None:
    port = free_port()
    environ = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def both(**more: str) -> list[Hosts | None]:
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(find_hosts, None, None, {**environ, **more, "RANK": rank}) for rank in "01"]
            return [one.result() for one in waiting]

    first, second = both()
    assert first is not None
    assert second is not None
    assert (first.index, second.index, first.addresses) == (0, 1, second.addresses)
    with socket.create_server(("127.0.0.1", port)):  # torchrun's own store
        agents = both(TORCHELASTIC_RUN_ID="1", TORCHELASTIC_USE_AGENT_STORE="True")
    assert [agent and agent.found_in for agent in agents] == ["torchrun", "torchrun"]


def test_what_is_no_report_hinders_nobody() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(come, port, 0, 2)
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\n", b"[1]\n", b'{"rank": 1}\n', b"[" * 5000, b"{" + b"x" * 4999):
            with call(port) as scanner:
                scanner.sendall(sent)
                if sent.endswith(b"\n") or len(sent) > 4096:
                    assert scanner.recv(1) == b""  # hung up on
        for wrong in (report(port=0), report(host="nowhere"), report(protocol="x"), report(rank="1")):
            with call(port) as scanner:
                scanner.sendall(wrong)
                assert scanner.recv(1) == b""
        with call(port) as silent:
            addresses = come(port, 1, 2)
            assert first.result(SECONDS) == addresses
            silent.close()


def test_a_process_that_was_started_anew_takes_its_own_place() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(come, port, 0, 3)
        with call(port) as killed:
            killed.sendall(report(size=3, port=20001))
        with call(port) as anew:
            anew.sendall(report(size=3, port=20002))
            come(port, 2, 3)
        assert first.result(SECONDS)[1] == "127.0.0.1:20002"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"size": 3}, "two processes have rank 1"),
        ({"size": 4, "rank": 2}, "was told of 4 processes, the first one of 3"),
        ({"size": 3, "rank": 3}, "has rank 3; the first one has 0, the others have 1 to 2"),
        ({"size": 3, "rank": 0}, "has rank 0; the first one has 0, the others have 1 to 2"),
    ],
)
def test_processes_that_contradict_each_other_all_learn_why(second: dict[str, object], said: str) -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(come, port, 0, 3)
        with call(port) as other, call(port) as contradicting:
            other.sendall(report(size=3))
            contradicting.sendall(report(**second))
            answers = [json.loads(one.makefile().readline())["error"] for one in (other, contradicting)]
        error = outcome(first)
    assert said in error.problem
    assert error.field == "MASTER_ADDR"
    assert answers == [error.problem] * 2


def outcome(waiting: Future[tuple[str, ...]]) -> ConfigError:
    error = waiting.exception(SECONDS)
    assert isinstance(error, ConfigError)
    return error


def test_the_first_process_tells_everybody_who_did_not_come() -> None:
    with listen(0) as listener:
        port = int(listener.getsockname()[1])
        with call(port) as second:
            second.sendall(report(rank=2, size=4))
            with pytest.raises(HostError, match=r"has waited in vain for rank 1, 3\. Start all 4") as caught:
                gather(listener, "127.0.0.1", port, 4, 20000, time.monotonic() + 0.3)
            assert json.loads(second.makefile().readline())["missing"] == str(caught.value)
    assert caught.value.exit_code == 75  # their machines may be there the next time


def test_a_process_that_is_told_of_missing_others_ends_as_the_first_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(come, int(server.getsockname()[1]), 1, 3)
        connection, _ = server.accept()
        with connection:
            connection.sendall(to_line({"missing": "Nobody came."}))
            assert str(waiting.exception(SECONDS)) == "Nobody came."
            assert isinstance(waiting.exception(), HostError)


def test_a_first_process_that_never_comes_is_named() -> None:
    port = free_port()
    with pytest.raises(HostError, match=rf"from the first one, 127\.0\.0\.1:{port} \(Connection refused\)"):
        come(port, 1, 2, 0.1)


def test_a_port_that_another_program_has_is_named() -> None:
    with socket.create_server(("", 0)) as held:
        port = int(held.getsockname()[1])
        with pytest.raises(ConfigError, match=f"`MASTER_PORT` is {port}, which another program uses"):
            come(port, 0, 2)


def test_another_program_that_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(come, int(server.getsockname()[1]), 1, 2)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            assert "another program than Model Trainer answers" in str(outcome(waiting))


@pytest.fixture
def reports() -> Callable[..., list[Reported]]:
    return lambda *hosts: [Reported(rank, host, 2000 + rank, to) for rank, (host, to) in enumerate(hosts, start=1)]


def test_addresses_are_those_by_which_the_machines_reach_each_other(reports: Callable[..., list[Reported]]) -> None:
    came = reports(("10.0.0.2", "10.0.0.1"), ("fd00::3", "fd00::1"))
    assert addresses_by_rank(came, "gpu01", 1000) == ("10.0.0.1:1000", "10.0.0.2:2001", "[fd00::3]:2002")


def test_a_neighbour_on_the_first_machine_is_not_127_0_0_1_for_the_others(
    reports: Callable[..., list[Reported]],
) -> None:
    came = reports(("127.0.0.1", "127.0.0.1"), ("10.0.0.2", "10.0.0.1"))
    assert addresses_by_rank(came, "localhost", 1000) == ("10.0.0.1:1000", "10.0.0.1:2001", "10.0.0.2:2002")
