"""Copies batches to the devices, split into one shard per replica."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from model_trainer.pipeline.batch import Batch
from model_trainer.pipeline.shard import BatchShard

__all__ = ["feed"]


def feed(dataset: tf.data.Dataset, shard: BatchShard, strategy: tf.distribute.Strategy) -> Iterable[Any]:
    """Returns the batches of a pipeline, distributed over the devices of this process; may be iterated repeatedly.

    This does not use `strategy.distribute_datasets_from_function`, which has an iterator with an autotuning thread for
    every device, and may take a minute to stop when the run ends.

    Args:
        dataset: the batch shards of one device after the other, as `Pipeline` yields them for `shard`.
        shard: the rows of a batch that belong to this process.
    """
    return dataset if shard.num_own == 1 else _DistributedBatches(dataset, shard, strategy)


class _DistributedBatches:
    def __init__(self, dataset: tf.data.Dataset, shard: BatchShard, strategy: tf.distribute.Strategy) -> None:
        self._dataset = dataset
        self._shard = shard
        self._strategy = strategy

    def __iter__(self) -> Iterator[Any]:
        devices = self._strategy.extended.worker_devices
        shards: list[Batch] = []
        for shard in self._dataset:
            with tf.device(devices[len(shards)]):  # copied to a GPU while that still computes the previous step
                shards.append(tf.nest.map_structure(tf.identity, shard))
            if len(shards) == len(devices):
                yield tf.nest.map_structure(self._per_device, *shards)
                shards = []

    def _per_device(self, *values: tf.Tensor) -> Any:
        first = self._shard.first
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group - first]
        )
