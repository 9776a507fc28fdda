"""Which rows of each batch this process reads, and how its devices divide them.

A batch belongs to all devices of all processes together. Device d gets one row more than the others where the batch
cannot be divided evenly and d is among the first. Nothing here is a tensor: an epoch has batches of two sizes at most.
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
    """One process's part in every batch.

    Attributes:
        num_devices: of all processes together.
        first: number of this process's first device among them.
        count: how many devices this process has; None: all.
        least: rows that a device gets at least. Where the batch has too few, rows behind its end fill up, which show
            the batch's first image with weight 0: without any image batch normalisation would have nothing to average.
    """

    num_devices: int = 1
    first: int = 0
    count: int | None = None
    least: int = 1

    def of_device(self, number: int, batch_size: int) -> Rows:
        """The rows of this process's device `number`, counted from 0."""
        device = self.first + number
        return Rows(self._start_of(device, batch_size), self._start_of(device + 1, batch_size))

    def of_process(self, batch_size: int) -> Rows:
        """The rows of all its devices together."""
        return Rows(self._start_of(self.first, batch_size), self._start_of(self.first + self.num_own, batch_size))

    def with_partners(self, batch_size: int) -> Rows:
        """The same, and at either end the partner of a row whose pair is cut in two; see `augment.mixing`."""
        own = self.of_process(batch_size)
        return Rows(own.start - own.start % 2, own.stop + own.stop % 2)

    @property
    def num_own(self) -> int:
        """Devices of this process."""
        return self.num_devices - self.first if self.count is None else self.count

    def _start_of(self, device: int, batch_size: int) -> int:
        size, more = divmod(max(batch_size, self.num_devices * self.least), self.num_devices)
        return device * size + min(device, more)


@dataclass(frozen=True)
class Division:
    """How the batches of an epoch are divided: all alike but for the last one, which may be smaller.

    Attributes:
        share: of this process.
        batch_size: rows of a batch over all devices.
        num_examples: in an epoch.
        with_partners: whether rows are read that only images of this process's rows are mixed with.
    """

    share: BatchShard
    batch_size: int
    num_examples: int
    with_partners: bool = False

    @property
    def num_steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_examples // self.batch_size)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows in a batch, and in the last one of an epoch."""
        return self.batch_size, self.num_examples - (self.num_steps - 1) * self.batch_size

    @property
    def places(self) -> int:
        """Rows that are read for each batch, with empty places behind those of a smaller one."""
        return max(len(rows) for rows in self.read)

    @property
    def read(self) -> tuple[Rows, Rows]:
        """The rows that are read of a batch, and of an epoch's last one."""
        of = self.share.with_partners if self.with_partners else self.share.of_process
        return of(self.sizes[0]), of(self.sizes[1])

    def at(self, step: tf.Tensor, values: tuple[int, int]) -> tf.Tensor:
        """int64 `()`: the first of `values`, or the second where `step` of the run is an epoch's last."""
        last = step % self.num_steps == self.num_steps - 1
        return tf.where(last, *(tf.constant(value, tf.int64) for value in reversed(values)))

    def position(self, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """From the number of a place, over all batches of the run, to what is read there.

        Returns:
            The position in the run; whether there is a row at all; whether that row is one of the batch's, not one
            that fills up behind its end.
        """
        step, within = place // self.places, place % self.places
        full, last = self.read
        row = self.at(step, (full.start, last.start)) + within
        is_there = within < self.at(step, (len(full), len(last)))
        counts = row < self.at(step, self.sizes)
        return step * self.batch_size + tf.where(counts, row, 0), is_there, counts
