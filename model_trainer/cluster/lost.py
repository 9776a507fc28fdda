"""Another machine is gone: how TensorFlow says so, and what we say."""

from __future__ import annotations

import tensorflow as tf

from model_trainer.cluster.hosts import Hosts

__all__ = ["LOST", "lost_message"]

# A closed connection, a heartbeat that stays out, an operation that was given up because another one failed so.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


def lost_message(hosts: Hosts, error: tf.errors.OpError) -> str:
    """Which machine seems to be gone, as far as the error tells, and what to do."""
    gone = [
        f"host {number} ({address})"
        for number, address in enumerate(hosts.addresses)
        if number != hosts.index and (f"task:{number}" in error.message or address in error.message)
    ]
    who = " or ".join(gone) if gone else "another host"
    return (
        f"The connection to {who} is lost; its own messages tell why. Training stops here and goes on from the last "
        "checkpoint when all run again with --resume."
    )
