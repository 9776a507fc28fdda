"""What happens to whole batches inside `tf.data`: images are mixed, and each device gets its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from model_trainer.pipeline.augment import BatchAugmentation
from model_trainer.pipeline.batch import Batch
from model_trainer.pipeline.share import Rows, Share

__all__ = ["Division", "for_each_device", "mix"]


@dataclass(frozen=True)
class Division:
    """How the batches of an epoch are divided: all alike but for the last one, which may be smaller.

    Attributes:
        share: of this process.
        batch_size: rows of a batch over all devices.
        num_examples: in an epoch.
        with_partners: whether rows are read that only images of this process's rows are mixed with.
    """

    share: Share
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


def mix(
    augment: Sequence[BatchAugmentation], num_classes: int, seed: int, division: Division
) -> Callable[[tf.Tensor, Batch], Batch]:
    """A function from a step and the rows that were read to this process's rows, mixed.

    Labels come out as float32 `(rows, num_classes)`. What happens to a row follows from its place in the whole batch,
    so any number of processes and devices sees the same images.
    """
    fold_in = tf.random.experimental.stateless_fold_in

    def apply(step: tf.Tensor, batch: Batch) -> Batch:
        images, targets = batch.inputs, batch.targets
        if targets.dtype == tf.int32:
            targets = tf.one_hot(targets, num_classes)
        of_step = fold_in(tf.constant([seed, 0x6D78], tf.int32), step)
        first = division.at(step, (division.read[0].start, division.read[1].start))
        for position, augmentation in enumerate(augment):
            images, targets = augmentation.apply_to_batch(
                images, targets, batch.weights, fold_in(of_step, position), first=tf.cast(first, tf.int32)
            )
        full, last = (division.share.of_process(size) for size in division.sizes)
        start = division.at(step, (full.start, last.start)) - first
        stop = start + division.at(step, (len(full), len(last)))
        mixed = Batch(images, targets, batch.weights)
        return tf.nest.map_structure(lambda column: column[start:stop], mixed)

    return apply


def for_each_device(division: Division) -> Callable[[tf.Tensor, Batch], tf.data.Dataset]:
    """A function from a step and this process's rows to their parts, one for each of its devices."""
    share = division.share
    begin = [share.of_process(size).start for size in division.sizes]
    parts = [[share.of_device(number, size) for number in range(share.num_own)] for size in division.sizes]
    starts = [[rows.start - start for rows in of_size] for of_size, start in zip(parts, begin, strict=True)]
    stops = [[rows.stop - start for rows in of_size] for of_size, start in zip(parts, begin, strict=True)]

    def divide(step: tf.Tensor, batch: Batch) -> tf.data.Dataset:
        kind = division.at(step, (0, 1))
        edges = tf.gather(tf.constant(starts), kind), tf.gather(tf.constant(stops), kind)

        def part(start: tf.Tensor, stop: tf.Tensor) -> Batch:
            return tf.nest.map_structure(lambda column: column[start:stop], batch)

        return tf.data.Dataset.from_tensor_slices(edges).map(part)

    return divide
