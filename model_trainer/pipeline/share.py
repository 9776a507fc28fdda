"""Which rows of each batch this process reads, and how its devices divide them.

A batch belongs to all devices of all processes together. Device d gets one row more than the others where the batch
cannot be divided evenly and d is among the first. Nothing here is a tensor: an epoch has batches of two sizes at most.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Rows", "Share"]


@dataclass(frozen=True)
class Rows:
    """Rows `start` to `stop - 1` of a batch."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Share:
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
