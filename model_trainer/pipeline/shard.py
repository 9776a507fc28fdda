"""Batch shards: which rows of each batch this process reads, and how its devices divide them.

The global batch is divided over all devices of all processes. If it cannot be divided evenly, the first devices get one
row more. Shards are plain numbers, not tensors, because an epoch has batches of at most two sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

__all__ = ["BatchShard", "Division", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Rows `start` to `stop - 1` of a batch."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class BatchShard:
    """The rows of one process in every batch.

    Attributes:
        num_devices: of all processes together.
        first: index of this process's first device among them.
        count: devices of this process; None means all.
        least: minimum number of rows for a device. If the batch has too few, it is padded with copies of its
            first image with weight 0: without any image batch normalization would have nothing to average.
    """

    num_devices: int = 1
    first: int = 0
    count: int | None = None
    least: int = 1

    def of_device(self, number: int, batch_size: int) -> Rows:
        """The rows of this process's device `number`, 0-based."""
        device = self.first + number
        return Rows(self._start_of(device, batch_size), self._start_of(device + 1, batch_size))

    def of_process(self, batch_size: int) -> Rows:
        """The rows of all devices of this process."""
        return Rows(self._start_of(self.first, batch_size), self._start_of(self.first + self.num_own, batch_size))

    def with_partners(self, batch_size: int) -> Rows:
        """`of_process`, extended by the partner of a row whose pair would be split; see `augment.mixing`."""
        own = self.of_process(batch_size)
        return Rows(own.start - own.start % 2, own.stop + own.stop % 2)

    @property
    def num_own(self) -> int:
        """Devices of this process."""
        return self.num_devices - self.first if self.count is None else self.count

    def _start_of(self, device: int, batch_size: int) -> int:
        size, remainder = divmod(max(batch_size, self.num_devices * self.least), self.num_devices)
        return device * size + min(device, remainder)


@dataclass(frozen=True)
class Division:
    """How the batches of an epoch are divided: all in the same way, except the last one, which may be smaller.

    Attributes:
        share: the shard of this process.
        batch_size: rows of a batch, over all devices.
        num_examples: in an epoch.
        with_partners: whether the process also reads the rows that its own images are mixed with.
    """

    shard: BatchShard
    batch_size: int
    num_examples: int
    with_partners: bool = False

    @property
    def num_steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_examples // self.batch_size)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows in a full batch, and in the last one of an epoch."""
        return self.batch_size, self.num_examples - (self.num_steps - 1) * self.batch_size

    @property
    def slots(self) -> int:
        """Rows that the pipeline allots to each batch of this process; in a smaller batch the last ones are padding."""
        return max(len(rows) for rows in self.read)

    @property
    def read(self) -> tuple[Rows, Rows]:
        """The rows that this process reads of a full batch, and of an epoch's last one."""
        rows_of = self.shard.with_partners if self.with_partners else self.shard.of_process
        return rows_of(self.sizes[0]), rows_of(self.sizes[1])

    def at(self, step: tf.Tensor, values: tuple[int, int]) -> tf.Tensor:
        """int64 `()`: the first of `values`, or the second if `step` of the run is the last of an epoch."""
        last = step % self.num_steps == self.num_steps - 1
        return tf.where(last, *(tf.constant(value, tf.int64) for value in reversed(values)))

    def position(self, slot: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Maps a slot, counted over all batches of the run, to the row that is read there.

        Returns:
            The position in the run; whether the slot holds a row; whether that row belongs to the batch, rather than
            padding it up to `BatchShard.least`.
        """
        step, within = slot // self.slots, slot % self.slots
        full, last = self.read
        row = self.at(step, (full.start, last.start)) + within
        has_row = within < self.at(step, (len(full), len(last)))
        in_batch = row < self.at(step, self.sizes)
        return step * self.batch_size + tf.where(in_batch, row, 0), has_row, in_batch
