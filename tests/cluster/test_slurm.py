"""Slurm's compact lists are expanded, and each job and step gets its own ports."""

from __future__ import annotations

import pytest

from model_trainer.cluster.slurm import expand_counts, expand_nodes, first_port
from model_trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login1", ["login1"]),
        ("gpu[01-03,07],login1", ["gpu01", "gpu02", "gpu03", "gpu07", "login1"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[098-101]x", ["n098x", "n099x", "n100x", "n101x"]),
        ("rack[1-2]n[09-10]", ["rack1n09", "rack1n10", "rack2n09", "rack2n10"]),
        ("a,b-c,d[5]", ["a", "b-c", "d5"]),
    ],
)
def test_a_list_of_nodes_expands_to_their_names(text: str, names: list[str]) -> None:
    assert expand_nodes(text) == names


@pytest.mark.parametrize(
    "text", ["", "a,,b", "gpu[1-", "gpu[1-2", "gpu[2-1]", "gpu[a-b]", "gpu]", "n[]", "n[0-999999]"]
)
def test_a_list_of_nodes_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"should be a list of nodes such as"):
        expand_nodes(text)


def test_numbers_of_tasks_expand_to_one_per_node() -> None:
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    with pytest.raises(ConfigError, match="should be numbers of tasks"):
        expand_counts("2(3)")


def test_consecutive_jobs_and_steps_have_no_port_in_common() -> None:
    assert abs(first_port(4711, 0) - first_port(4712, 0)) >= 16
    assert abs(first_port(4711, 0) - first_port(4711, 1)) >= 16
    assert all(1024 < first_port(job, 0) < 32768 - 16 for job in range(2000))
