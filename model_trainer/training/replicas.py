"""Reductions of values over replicas."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["first_replica", "sum_over_replicas"]


def sum_over_replicas(values: Any) -> Any:
    """Sums a structure of float32 tensors over all replicas, with a single all-reduce; called in replica context."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    vector = tf.concat([tf.reshape(tensor, [-1]) for tensor in flat], 0)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, vector)
    pieces = tf.split(total, [tensor.shape.num_elements() for tensor in flat])
    summed = [tf.reshape(piece, tensor.shape) for piece, tensor in zip(pieces, flat, strict=True)]
    return tf.nest.pack_sequence_as(values, summed)


def first_replica(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Returns the values of the first replica, for values that all replicas share; called in cross-replica context."""
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)
