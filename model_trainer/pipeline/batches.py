"""What happens to whole batches inside `tf.data`: images are mixed, and each device gets its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from model_trainer.pipeline.augment import BatchAugmentation
from model_trainer.pipeline.batch import Batch
from model_trainer.pipeline.shard import Division

__all__ = ["for_each_device", "mix"]


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
