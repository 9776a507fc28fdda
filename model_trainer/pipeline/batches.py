"""What happens to whole batches inside `tf.data`: images are mixed, and each replica gets its share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from model_trainer.pipeline.augment import BatchAugmentation

__all__ = ["for_each_replica", "mix"]

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images, labels, weights


def mix(
    augment: Sequence[BatchAugmentation], num_classes: int, seed: int
) -> Callable[[tf.Tensor, tuple[tf.Tensor, ...]], Batch]:
    """A function from a step and its whole batch to the batch with labels float32 `(batch, num_classes)`, mixed.

    It comes before the batch is divided, so any number of replicas sees the same images.
    """
    fold_in = tf.random.experimental.stateless_fold_in

    def apply(step: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> Batch:
        images, labels, weights = batch
        targets = tf.one_hot(labels, num_classes) if labels.dtype == tf.int32 else labels
        of_step = fold_in(tf.constant([seed, 0x6D78], tf.int32), step)
        for position, augmentation in enumerate(augment):
            images, targets = augmentation.apply_to_batch(images, targets, weights, fold_in(of_step, position))
        return images, targets, weights

    return apply


def for_each_replica(num_replicas: int) -> Callable[..., tf.data.Dataset]:
    """A function from a batch to its parts, one for each replica; the first ones take one image more where needed."""

    def divide(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.data.Dataset:
        count = tf.shape(weights)[0]
        # A replica without any image would give batch normalisation nothing to average: it gets one without weight.
        wanted = tf.maximum(count, num_replicas)
        filled = tf.pad(weights, [[0, wanted - count]])

        def start_of(replica: tf.Tensor) -> tf.Tensor:
            size, more = wanted // num_replicas, wanted % num_replicas
            return replica * size + tf.minimum(replica, more)

        def part(replica: tf.Tensor) -> Batch:
            rows = tf.range(start_of(replica), start_of(replica + 1))
            source = tf.where(rows < count, rows, 0)
            return tf.gather(images, source), tf.gather(labels, source), tf.gather(filled, rows)

        return tf.data.Dataset.range(num_replicas, output_type=tf.int32).map(part)

    return divide
