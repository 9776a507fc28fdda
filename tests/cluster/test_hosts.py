"""`Hosts`: the addresses of all processes of a run, and the index of this one."""

from __future__ import annotations

from model_trainer.cluster.hosts import Hosts, split_address


def test_hosts_describe_their_own_address_and_its_source() -> None:
    second = Hosts(("gpu01:2222", "gpu02:2222", "gpu03:2222"), 1, "Slurm")
    assert second.describe() == "host 1 of 3 (gpu02:2222), found in Slurm"
    assert (len(second), second.is_chief) == (3, False)


def test_the_brackets_of_an_ipv6_address_are_not_part_of_the_host() -> None:
    assert split_address("[fd00::1]:2222", "--hosts") == ("fd00::1", 2222)
