"""The machines of a run as a value."""

from __future__ import annotations

from model_trainer.cluster.hosts import Hosts, split_address


def test_the_value_tells_who_it_is() -> None:
    second = Hosts(("gpu01:2222", "gpu02:2222", "gpu03:2222"), 1, "Slurm")
    assert second.describe() == "host 1 of 3 (gpu02:2222), found in Slurm"
    assert (len(second), second.is_chief) == (3, False)


def test_brackets_of_ipv6_are_no_part_of_the_host() -> None:
    assert split_address("[fd00::1]:2222", "--hosts") == ("fd00::1", 2222)
