"""The processes that train one run: what one tells the others, by TensorFlow's own reduction, and when one is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.cluster.hosts import Hosts
from model_trainer.errors import ConfigError, ModelTrainerError

__all__ = ["LOST_CONNECTION", "ProcessGroup", "lost_host_message"]

CHUNK_BYTES = 2**26  # of a message, in one reduction

# A closed connection, a heartbeat that stays out, an operation that was given up because another one failed so.
LOST_CONNECTION = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class ProcessGroup:
    """All processes of a run; a single one is a team too.

    Args:
        hosts: None for a process that trains alone.
        strategy: on the devices of all of them.
    """

    def __init__(self, hosts: Hosts | None, strategy: tf.distribute.Strategy) -> None:
        self.hosts = hosts
        self.strategy = strategy

    def __len__(self) -> int:
        return 1 if self.hosts is None else len(self.hosts)

    @property
    def index(self) -> int:
        """This process's number, from 0."""
        return 0 if self.hosts is None else self.hosts.index

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def exchange(self, message: bytes) -> list[bytes]:
        """Gives everybody everybody's message, in the order of the processes. All have to call this together."""
        if len(self) == 1:
            return [message]
        lengths = np.zeros(len(self), np.int32)
        lengths[self.index] = len(message)
        lengths = self._sum(lengths)
        return [self._from(owner, message, int(length)) for owner, length in enumerate(lengths)]

    def all_gather(self, value: Any) -> list[Any]:
        """The same for values of JSON types."""
        return [json.loads(message) for message in self.exchange(json.dumps(value).encode())]

    def broadcast_from_chief(self, make: Callable[[], Any]) -> Any:
        """What `make` gives, a value of JSON types, in the first process; its errors stop all of them.

        Raises:
            ModelTrainerError: what `make` raised; in the other processes ConfigError with its message.
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
            raise ConfigError(f"The first host cannot begin: {answer['error']}")
        return answer["value"]

    def _from(self, owner: int, message: bytes, length: int) -> bytes:
        parts = []
        for start in range(0, length, CHUNK_BYTES):
            size = min(CHUNK_BYTES, length - start)
            padded = np.zeros(-(-size // 4) * 4, np.uint8)
            if owner == self.index:
                padded[:size] = np.frombuffer(message, np.uint8, size, start)
            parts.append(self._sum(padded.view(np.int32)).view(np.uint8)[:size].tobytes())
        return b"".join(parts)

    def _sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of everybody's int32 `(n,)`. Where one alone is not 0 it arrives to the bit."""

        def of_device(context: tf.distribute.ValueContext) -> tf.Tensor:
            own = self.strategy.num_replicas_in_sync // len(self)
            is_first = context.replica_id_in_sync_group % own == 0  # a process with several devices speaks once
            return tf.constant(numbers if is_first else np.zeros_like(numbers))

        values = self.strategy.experimental_distribute_values_from_function(of_device)
        return np.asarray(self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None))


def lost_host_message(hosts: Hosts, error: tf.errors.OpError) -> str:
    """Which machine seems to be gone, as far as the error tells, and what to do."""
    gone = [
        f"host {number} ({address})"
        for number, address in enumerate(hosts.addresses)
        if number != hosts.index and _names(error.message, f"task:{number}", address)
    ]
    who = " or ".join(gone) if gone else "another host"
    return (
        f"The connection to {who} is lost; its own messages tell why. Training stops here and goes on from the last "
        "checkpoint when all run again with --resume."
    )


def _names(message: str, *names: str) -> bool:
    """Whether a message says one of the names, and not a longer one with it inside, such as task:12 for task:1."""
    return any(re.search(rf"(?<![\w.-]){re.escape(name)}(?!\d)", message) for name in names)
