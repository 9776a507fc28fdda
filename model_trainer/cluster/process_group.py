"""The process group of a run: all-gather and broadcast by TensorFlow's all-reduce, and lost connections."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.cluster.hosts import Hosts
from model_trainer.errors import ConfigError, ModelTrainerError

__all__ = ["LOST_CONNECTION_ERRORS", "ProcessGroup", "lost_host_message"]

CHUNK_BYTES = 2**26  # of a message, in one all-reduce

# A closed connection, a missing heartbeat, or an operation that was cancelled because of either.
LOST_CONNECTION_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class ProcessGroup:
    """All processes of a run, possibly a single one.

    Args:
        hosts: None if this is the only process.
        strategy: the distribution strategy over the devices of all processes.
    """

    def __init__(self, hosts: Hosts | None, strategy: tf.distribute.Strategy) -> None:
        self.hosts = hosts
        self.strategy = strategy

    def __len__(self) -> int:
        return 1 if self.hosts is None else len(self.hosts)

    @property
    def index(self) -> int:
        """The rank of this process, from 0."""
        return 0 if self.hosts is None else self.hosts.index

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes models, checkpoints and logs."""
        return self.index == 0

    def exchange(self, message: bytes) -> list[bytes]:
        """All-gathers messages: returns those of all processes by rank. All processes must call this together."""
        if len(self) == 1:
            return [message]
        lengths = np.zeros(len(self), np.int32)
        lengths[self.index] = len(message)
        lengths = self._sum(lengths)
        return [self._broadcast_from(owner, message, int(length)) for owner, length in enumerate(lengths)]

    def all_gather(self, value: Any) -> list[Any]:
        """All-gathers values of JSON types: returns those of all processes by rank. All must call this together."""
        return [json.loads(message) for message in self.exchange(json.dumps(value).encode())]

    def broadcast_from_chief(self, make: Callable[[], Any]) -> Any:
        """Calls `make` in the chief and broadcasts the result. All processes must call this together.

        Args:
            make: returns a value of JSON types.

        Raises:
            ModelTrainerError: `make` raised it in the chief; the other processes raise ConfigError with its message.
        """
        problem: ModelTrainerError | None = None
        answer: dict[str, Any] = {}
        if self.is_chief:
            try:
                answer = {"value": make()}
            except ModelTrainerError as error:
                problem, answer = error, {"error": str(error)}
        answer = self.all_gather(answer)[0]
        if problem is not None:
            raise problem
        if "error" in answer:
            raise ConfigError(f"The first host cannot start: {answer['error']}")
        return answer["value"]

    def _broadcast_from(self, owner: int, message: bytes, length: int) -> bytes:
        """The message of process `owner`, which has `length` bytes; each process passes its own as `message`."""
        chunks = []
        for start in range(0, length, CHUNK_BYTES):
            size = min(CHUNK_BYTES, length - start)
            padded = np.zeros(-(-size // 4) * 4, np.uint8)
            if owner == self.index:
                padded[:size] = np.frombuffer(message, np.uint8, size, start)
            chunks.append(self._sum(padded.view(np.int32)).view(np.uint8)[:size].tobytes())
        return b"".join(chunks)

    def _sum(self, numbers: np.ndarray) -> np.ndarray:
        """All-reduces int32 `(n,)`: the sum over all processes, bit by bit the message if all others are 0."""

        def device_value(context: tf.distribute.ValueContext) -> tf.Tensor:
            devices_per_process = self.strategy.num_replicas_in_sync // len(self)
            is_first = context.replica_id_in_sync_group % devices_per_process == 0  # each process contributes once
            return tf.constant(numbers if is_first else np.zeros_like(numbers))

        values = self.strategy.experimental_distribute_values_from_function(device_value)
        return np.asarray(self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None))


def lost_host_message(hosts: Hosts, error: tf.errors.OpError) -> str:
    """The message about a lost connection: the lost host, if the error names it, and what to do."""
    lost = [
        f"host {number} ({address})"
        for number, address in enumerate(hosts.addresses)
        if number != hosts.index and _names(error.message, f"task:{number}", address)
    ]
    who = " or ".join(lost) if lost else "another host"
    return (
        f"The connection to {who} was lost; its log gives the reason. Training stops here. To continue from the last "
        "checkpoint, start all hosts again with --resume."
    )


def _names(message: str, *names: str) -> bool:
    """Whether a message contains one of the names as a whole, not within a longer one, such as task:1 in task:12."""
    return any(re.search(rf"(?<![\w.-]){re.escape(name)}(?!\d)", message) for name in names)
