"""The first process gathers the reports of the others over real sockets and survives unrelated connections."""

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

SECONDS = 30.0  # a timeout that no test reaches: the other side always acts earlier


@contextlib.contextmanager
def first_process(size: int, master: str = "127.0.0.1") -> Iterator[tuple[int, Future[tuple[str, ...]]]]:
    """Yields the port of the first process, and a future of the addresses that it gathers."""
    with listen(0) as listener, ThreadPoolExecutor(1) as thread:
        port = int(listener.getsockname()[1])
        yield port, thread.submit(asyncio.run, gather(listener, master, port, size, 20000, SECONDS))


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def report(**changes: object) -> bytes:
    """The report that another process sends, as one line of JSON."""
    content = {"protocol": "model-trainer-hosts-1", "rank": 1, "size": 2, "host": "127.0.0.1", "port": 20001, **changes}
    return json.dumps(content).encode() + b"\n"


def answer(connection: socket.socket) -> dict[str, object]:
    with connection.makefile() as lines:
        return json.loads(lines.readline())


def test_every_process_gets_the_list_on_one_line_of_json() -> None:
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
def test_an_invalid_report_closes_only_its_own_connection(sent: bytes) -> None:
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


def test_a_connection_without_a_report_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_module, "REPORT_SECONDS", 0.01)
    with first_process(2) as (port, gathered):
        with call(port) as silent:
            assert silent.recv(1) == b""
        monkeypatch.undo()
        with call(port) as second:
            second.sendall(report())
            assert len(gathered.result(SECONDS)) == 2


def test_too_many_connections_close_the_oldest_one_without_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_list_longer_than_the_socket_buffer_arrives_complete() -> None:
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
            # Both reports of rank 1 are read before the end of the killed connection is noticed.
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
def test_contradicting_processes_all_get_the_error(second: dict[str, object], message: str) -> None:
    with first_process(3) as (port, gathered), call(port) as other, call(port) as contradicting:
        other.sendall(report(size=3))
        contradicting.sendall(report(**second))
        answers = [answer(one)["error"] for one in (other, contradicting)]
        error = gathered.exception(SECONDS)
    assert isinstance(error, ConfigError)
    assert message in error.problem
    assert error.field == "MASTER_ADDR"
    assert answers == [error.problem] * 2


def test_the_first_process_tells_all_others_which_ranks_are_missing() -> None:
    with listen(0) as listener:
        port = int(listener.getsockname()[1])
        with call(port) as second:
            second.sendall(report(rank=2, size=4))
            with pytest.raises(HostError, match=r"has not been reached by rank 1, 3\. Start all 4") as caught:
                asyncio.run(gather(listener, "127.0.0.1", port, 4, 20000, 1.0))
            assert answer(second)["missing"] == str(caught.value)
    assert caught.value.exit_code == 75  # a restart may succeed: the missing machines may be up by then


@pytest.fixture
def reports() -> Callable[..., list[Reported]]:
    return lambda *hosts: [Reported(rank, host, 2000 + rank, to) for rank, (host, to) in enumerate(hosts, start=1)]


def test_the_list_has_the_addresses_by_which_machines_reach_each_other(reports: Callable[..., list[Reported]]) -> None:
    reported = reports(("10.0.0.2", "10.0.0.1"), ("fd00::3", "fd00::1"))
    assert addresses_by_rank(reported, "gpu01", 1000) == ("10.0.0.1:1000", "10.0.0.2:2001", "[fd00::3]:2002")


def test_a_second_process_of_the_first_machine_is_not_listed_as_127_0_0_1(
    reports: Callable[..., list[Reported]],
) -> None:
    reported = reports(("127.0.0.1", "127.0.0.1"), ("10.0.0.2", "10.0.0.1"))
    assert addresses_by_rank(reported, "localhost", 1000) == ("10.0.0.1:1000", "10.0.0.1:2001", "10.0.0.2:2002")
