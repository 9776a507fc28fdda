"""The first process hears the others over real sockets, and whatever else finds its port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from model_trainer.cluster import gather as gather_module
from model_trainer.cluster.gather import Reported, addresses_by_rank, gather, listen
from model_trainer.errors import ConfigError, HostError

SECONDS = 30.0  # never waited for: every test ends by what the other side does


@contextlib.contextmanager
def first_process(size: int, master: str = "127.0.0.1") -> Iterator[tuple[int, Future[tuple[str, ...]]]]:
    """Its port, and the addresses that it will have gathered."""
    with listen(0) as listener, ThreadPoolExecutor(1) as thread:
        port = int(listener.getsockname()[1])
        yield port, thread.submit(asyncio.run, gather(listener, master, port, size, 20000, SECONDS))


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def report(**changes: object) -> bytes:
    """One line as another process sends it."""
    content = {"protocol": "model-trainer-hosts-1", "rank": 1, "size": 2, "host": "127.0.0.1", "port": 20001, **changes}
    return json.dumps(content).encode() + b"\n"


def answer(connection: socket.socket) -> dict[str, object]:
    with connection.makefile() as lines:
        return json.loads(lines.readline())


def test_everybody_gets_the_list_on_one_line_of_json() -> None:
    with first_process(3) as (port, gathered), call(port) as second, call(port) as third:
        third.sendall(report(rank=2, size=3, port=20002))
        second.sendall(report(size=3))
        addresses = ["127.0.0.1:20000", "127.0.0.1:20001", "127.0.0.1:20002"]
        for one in (second, third):
            assert answer(one) == {"protocol": "model-trainer-hosts-1", "addresses": addresses}
        assert gathered.result(SECONDS) == tuple(addresses)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\n",
        b"[1]\n",
        b'{"rank": 1}\n',
        b"[" * 5000,
        b"{" + b"x" * 4999,
        report(port=0),
        report(host="nowhere"),
        report(protocol="x"),
        report(rank="1"),
    ],
)
def test_an_invalid_report_closes_its_connection_and_affects_no_other(sent: bytes) -> None:
    with first_process(2) as (port, gathered), call(port) as silent:
        with call(port) as scanner:
            scanner.sendall(sent)
            assert scanner.recv(1) == b""
        with call(port) as second:
            second.sendall(report())
            assert gathered.result(SECONDS) == ("127.0.0.1:20000", "127.0.0.1:20001")
        assert silent.recv(1) == b""


def test_data_after_a_report_closes_the_connection() -> None:
    with first_process(3) as (port, gathered):
        with call(port) as talking:
            talking.sendall(report(size=3) + b"more")
            assert talking.recv(1) == b""
        with call(port) as second, call(port) as third:
            second.sendall(report(size=3))
            third.sendall(report(rank=2, size=3))
            assert len(gathered.result(SECONDS)) == 3


def test_who_reports_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_module, "REPORT_SECONDS", 0.01)
    with first_process(2) as (port, gathered):
        with call(port) as silent:
            assert silent.recv(1) == b""
        monkeypatch.undo()
        with call(port) as second:
            second.sendall(report())
            assert len(gathered.result(SECONDS)) == 2


def test_of_too_many_connections_the_oldest_without_a_report_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_module, "MAX_UNKNOWN", 2)
    monkeypatch.setattr(gather_module, "REPORT_SECONDS", 2 * SECONDS)
    with first_process(2) as (port, gathered), contextlib.ExitStack() as opened:
        oldest, *silent = [opened.enter_context(call(port)) for _ in range(5)]
        assert oldest.recv(1) == b""
        with call(port) as second:
            second.sendall(report())
            assert len(gathered.result(SECONDS)) == 2
        assert [one.recv(1) for one in silent] == [b""] * 4


def test_a_process_that_does_not_read_its_answer_does_not_delay_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_module, "ANSWER_SECONDS", 0.01)
    with first_process(2, "m" * 20_000_000) as (port, gathered), call(port) as second:
        second.sendall(report())
        assert len(gathered.result(SECONDS)) == 2


def test_a_list_that_is_longer_than_what_the_system_buffers_arrives_whole() -> None:
    with first_process(2, "m" * 20_000_000) as (port, gathered), call(port) as second:
        second.sendall(report())
        assert answer(second)["addresses"] == list(gathered.result(SECONDS))


def test_a_restarted_process_keeps_its_rank() -> None:
    with listen(0) as listener:
        port = int(listener.getsockname()[1])
        with call(port) as killed:
            killed.sendall(report(size=3, port=20001))
        with call(port) as retry, call(port) as third:
            retry.sendall(report(size=3, port=20002))
            third.sendall(report(size=3, rank=2, port=20003))
            # Both reports are read before the end of the first connection is.
            gathered = asyncio.run(gather(listener, "127.0.0.1", port, 3, 20000, SECONDS))
    assert gathered[1:] == ("127.0.0.1:20002", "127.0.0.1:20003")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"size": 3}, "two processes have rank 1"),
        ({"size": 4, "rank": 2}, "expects 4 processes, the first one 3"),
        ({"size": 3, "rank": 3}, "has rank 3; the first one has 0, the others have 1 to 2"),
        ({"size": 3, "rank": 0}, "has rank 0; the first one has 0, the others have 1 to 2"),
    ],
)
def test_processes_that_contradict_each_other_all_learn_why(second: dict[str, object], message: str) -> None:
    with first_process(3) as (port, gathered), call(port) as other, call(port) as contradicting:
        other.sendall(report(size=3))
        contradicting.sendall(report(**second))
        answers = [answer(one)["error"] for one in (other, contradicting)]
        error = gathered.exception(SECONDS)
    assert isinstance(error, ConfigError)
    assert message in error.problem
    assert error.field == "MASTER_ADDR"
    assert answers == [error.problem] * 2


def test_the_first_process_tells_everybody_who_did_not_come() -> None:
    with listen(0) as listener:
        port = int(listener.getsockname()[1])
        with call(port) as second:
            second.sendall(report(rank=2, size=4))
            with pytest.raises(HostError, match=r"has not been reached by rank 1, 3\. Start all 4") as caught:
                asyncio.run(gather(listener, "127.0.0.1", port, 4, 20000, 1.0))
            assert answer(second)["missing"] == str(caught.value)
    assert caught.value.exit_code == 75  # their machines may be there the next time


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
