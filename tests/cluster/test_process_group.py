"""The message about a lost machine."""

from __future__ import annotations

import pytest
import tensorflow as tf

from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.process_group import lost_host_message

HOSTS = Hosts(tuple(f"10.0.0.{number}:2222" for number in range(14)), 0, "--hosts")


@pytest.mark.parametrize(
    ("error", "lost_host"),
    [
        ("/job:worker/replica:0/task:12 heartbeat timeout", "host 12 (10.0.0.12:2222)"),
        ("Task /job:worker/replica:0/task:1 is gone", "host 1 (10.0.0.1:2222)"),
        ("connect to 10.0.0.13:2222 failed", "host 13 (10.0.0.13:2222)"),
        ("connect to 110.0.0.3:2222 failed", "another host"),
        ("/job:worker/replica:0/task:0: the ring is broken", "another host"),  # this process itself
    ],
)
def test_only_the_host_that_the_error_names_is_reported_as_lost(error: str, lost_host: str) -> None:
    message = lost_host_message(HOSTS, tf.errors.UnavailableError(None, None, error))
    assert message.startswith(f"The connection to {lost_host} was lost")
