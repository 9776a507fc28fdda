"""The statistics of batch normalisation, made exact before they are used.

A moving average is late: it has batches in it that older weights saw. At the end of an epoch, before validation and
before models are saved, training images go through the network as it is now. This is known as precise batch
normalisation, and as `torch.optim.swa_utils.update_bn`.

Source: https://arxiv.org/abs/2105.07576, section 3.
"""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from model_trainer.network.batch_norm import Moments
from model_trainer.training.loop import Loop
from model_trainer.training.progress import EpochProgress

__all__ = ["refresh_statistics"]

NUM_IMAGES = 1024  # fewer make a loss of validation that is 3 or 4 % off by chance alone
MAX_FRACTION = 0.25  # of an epoch, before it is the last one: a forward pass takes a third of a step's time


def refresh_statistics(loop: Loop, epoch: int) -> list[np.ndarray]:
    """Averages the statistics over training images anew, for the weights that the network has now.

    Nothing happens where they are declared otherwise than by "auto", or where no batch normalisation trains.

    Args:
        epoch: that ended.

    Returns:
        What they were before, for `MovingAverages.assign`.
    """
    prepared, averages = loop.prepared, loop.prepared.parts.network.averages
    before = averages.values()
    batch_size = prepared.run.training.batch_size
    if not _is_due(loop):
        return before
    count = _num_batches(loop, is_last=epoch + 1 == prepared.run.training.epochs)
    # Batches with which the next epoch begins, also after the last one: each run and each process has the same ones.
    first = (epoch + 1) * loop.steps_per_epoch
    if loop.refreshed_until != epoch or loop.refresh_batches is None:
        # Of all epochs in one stream: to begin a new one takes a second.
        loop.refresh_batches = iter(prepared.divided(_beginnings(loop, epoch)))
    batches = itertools.islice(loop.refresh_batches, count)
    loop.refreshed_until = epoch + 1
    sums: dict[str, Moments] = {}
    num_good: list[tf.Tensor] = []
    with EpochProgress(loop.console, "batch norm statistics", count) as progress:
        for number, batch in enumerate(batches):
            step = tf.constant(np.int64(first + number))
            seen = loop.phase.statistics_step(batch, step, batch_size, tf.constant(bool(loop.stop)))
            sums = tf.nest.map_structure(tf.add, sums, seen.moments) if sums else seen.moments
            num_good.append(seen.is_finite)
            if len(loop.process_group) > 1 and seen.stop.numpy() > 0:
                loop.watch.asked_to_stop = True  # all processes read it in the same step
            if loop.must_stop:
                loop.refresh_batches = None
                return before
            if progress.advance(batch_size):
                progress.show(number + 1, {})
    averages.refresh(sums, int(np.sum(num_good)))
    return before


def _beginnings(loop: Loop, epoch: int) -> tf.data.Dataset:
    epochs = loop.prepared.run.training.epochs
    counts = (_num_batches(loop, is_last=is_last) for is_last in (False, True))
    return loop.prepared.train_pipeline.beginnings(epochs, epoch, *counts)


def _is_due(loop: Loop) -> bool:
    is_auto = loop.prepared.run.network.batch_norm_momentum == "auto"
    return is_auto and loop.prepared.parts.network.averages.any_trainable and not loop.must_stop


def _num_batches(loop: Loop, is_last: bool) -> int:
    batch_size = loop.prepared.run.training.batch_size
    whole = len(loop.prepared.train) // batch_size
    return max(1, min(-(-NUM_IMAGES // batch_size), whole if is_last else int(MAX_FRACTION * whole)))
