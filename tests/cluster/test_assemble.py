"""Processes with known addresses wait for one another before TensorFlow does."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cluster.assemble import assemble
from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.supervisor import LOST, STARTED
from model_trainer.errors import ConfigError, HostError
from model_trainer.testing import free_addresses


def test_all_go_on_when_all_have_come() -> None:
    addresses = free_addresses(3)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(assemble, Hosts(addresses, index, "the test"), 60.0) for index in range(3)]
        assert [each.result() for each in waiting] == [None, None, None]


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        hosts = Hosts((f"127.0.0.1:{port}", *free_addresses(1)), 0, "the test")
        with pytest.raises(ConfigError, match=f"port {port} of this machine is taken, by another"):
            assemble(hosts, 60.0)


@pytest.mark.parametrize("index", [0, 1])
def test_who_waits_in_vain_says_for_whom(index: int) -> None:
    with pytest.raises(HostError, match=r"^host [01] of 2 .*: .*(in vain for rank 1|from the first one)"):
        assemble(Hosts(free_addresses(2), index, "the test"), 0.1)


def test_a_lost_host_is_told_to_the_supervisor_by_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose() -> None:
        raise HostError("gone")

    assert exit_code_of(lose) == 75
    monkeypatch.setenv(STARTED, "20261121-120000")
    assert exit_code_of(lose) == LOST
