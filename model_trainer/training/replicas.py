"""Values of all replicas of a step made one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["of_one_replica", "sum_over_replicas"]


def sum_over_replicas(values: Any) -> Any:
    """Inside a replica: the sums over all of them, of every float32 tensor in a nest, in one reduction."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    row = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat([tf.reshape(each, [-1]) for each in flat], 0))
    parts = tf.split(row, [each.shape.num_elements() for each in flat])
    summed = [tf.reshape(part, each.shape) for part, each in zip(parts, flat, strict=True)]
    return tf.nest.pack_sequence_as(values, summed)


def of_one_replica(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Outside the replicas: a nest of what all of them have alike."""
    return tf.nest.map_structure(lambda each: strategy.experimental_local_results(each)[0], values)
