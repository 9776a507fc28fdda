"""Batches on their way to the devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from model_trainer.pipeline.batch import Batch
from model_trainer.pipeline.shard import BatchShard

__all__ = ["feed"]


def feed(dataset: tf.data.Dataset, share: BatchShard, strategy: tf.distribute.Strategy) -> Iterable[Any]:
    """A pipeline's batches, each divided over the devices of this process; can be gone through again and again.

    Not by `strategy.distribute_datasets_from_function`: for every device it has an iterator with a thread that tunes
    it, and may take a minute to notice that the run has ended.

    Args:
        dataset: batches of one device after the other, as `Pipeline` gives them for `share`.
    """
    return dataset if share.num_own == 1 else _Divided(dataset, share, strategy)


class _Divided:
    def __init__(self, dataset: tf.data.Dataset, share: BatchShard, strategy: tf.distribute.Strategy) -> None:
        self._dataset = dataset
        self._share = share
        self._strategy = strategy

    def __iter__(self) -> Iterator[Any]:
        devices = self._strategy.extended.worker_devices
        parts: list[Batch] = []
        for part in self._dataset:
            with tf.device(devices[len(parts)]):  # a GPU gets it while it still computes the step before
                parts.append(tf.nest.map_structure(tf.identity, part))
            if len(parts) == len(devices):
                yield tf.nest.map_structure(self._per_device, *parts)
                parts = []

    def _per_device(self, *values: tf.Tensor) -> Any:
        first = self._share.first
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group - first]
        )
