"""Batch-level stages of the pipeline: mixing the images, and dividing the batch over the devices."""

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
    """The function that mixes the rows read for a step, and returns the rows of this process.

    Its labels are float32 `(rows, num_classes)`. How a row is mixed depends only on its position in the global batch,
    so the images are the same for any number of processes and devices.
    """
    fold_in = tf.random.experimental.stateless_fold_in

    def apply(step: tf.Tensor, batch: Batch) -> Batch:
        images, targets = batch.inputs, batch.targets
        if targets.dtype == tf.int32:
            targets = tf.one_hot(targets, num_classes)
        step_seed = fold_in(tf.constant([seed, 0x6D78], tf.int32), step)
        first = division.at(step, (division.read[0].start, division.read[1].start))
        for position, augmentation in enumerate(augment):
            images, targets = augmentation.apply_to_batch(
                images, targets, batch.weights, fold_in(step_seed, position), first=tf.cast(first, tf.int32)
            )
        full, last = (division.shard.of_process(size) for size in division.sizes)
        start = division.at(step, (full.start, last.start)) - first
        stop = start + division.at(step, (len(full), len(last)))
        mixed = Batch(images, targets, batch.weights)
        return tf.nest.map_structure(lambda column: column[start:stop], mixed)

    return apply


def for_each_device(division: Division) -> Callable[[tf.Tensor, Batch], tf.data.Dataset]:
    """The function that divides the rows of this process in a step into one batch for each of its devices."""
    shard = division.shard
    offsets = [shard.of_process(size).start for size in division.sizes]
    rows_by_size = [[shard.of_device(number, size) for number in range(shard.num_own)] for size in division.sizes]
    starts = [[rows.start - offset for rows in devices] for devices, offset in zip(rows_by_size, offsets, strict=True)]
    stops = [[rows.stop - offset for rows in devices] for devices, offset in zip(rows_by_size, offsets, strict=True)]

    def divide(step: tf.Tensor, batch: Batch) -> tf.data.Dataset:
        size_index = division.at(step, (0, 1))
        edges = tf.gather(tf.constant(starts), size_index), tf.gather(tf.constant(stops), size_index)

        def device_batch(start: tf.Tensor, stop: tf.Tensor) -> Batch:
            return tf.nest.map_structure(lambda column: column[start:stop], batch)

        return tf.data.Dataset.from_tensor_slices(edges).map(device_batch)

    return divide
