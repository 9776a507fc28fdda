"""Recomputes the statistics of batch normalization before validation.

A moving average lags behind: it contains the statistics of batches that were computed with older weights. At the end
of an epoch, before validation and before models are saved, the statistics are recomputed from training images with the
current weights. This is known as precise batch normalization, and as `torch.optim.swa_utils.update_bn`.

Source: https://arxiv.org/abs/2105.07576, section 3.
"""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from model_trainer.network.batch_norm import Moments
from model_trainer.training.loop import Loop
from model_trainer.training.progress import EpochProgress

__all__ = ["refresh_batch_norm_statistics"]

NUM_IMAGES = 1024  # with fewer the validation loss is off by 3 to 4 % by chance alone
MAX_FRACTION = 0.25  # of an epoch, except the last: a forward pass takes a third of the time of a training step


def refresh_batch_norm_statistics(loop: Loop, epoch: int) -> list[np.ndarray]:
    """Recomputes the statistics from training images, for the current weights of the network.

    Does nothing if `batch_norm_momentum` is not "auto", or if no batch normalization layer is trainable.

    Args:
        epoch: the one that has just ended.

    Returns:
        The previous statistics, for `MovingAverages.assign`.
    """
    prepared, averages = loop.prepared, loop.prepared.step_setup.network.moving_statistics
    previous = averages.values()
    batch_size = prepared.run.training.batch_size
    if not _is_due(loop):
        return previous
    count = _num_batches(loop, is_last=epoch + 1 == prepared.run.training.epochs)
    # The first batches of the next epoch, also after the last one, so that all runs and processes use the same images.
    first = (epoch + 1) * loop.steps_per_epoch
    if loop.refreshed_until != epoch or loop.refresh_batches is None:
        # One iterator for all epochs: a new one takes a second to start.
        loop.refresh_batches = iter(prepared.distributed(_beginnings(loop, epoch)))
    batches = itertools.islice(loop.refresh_batches, count)
    loop.refreshed_until = epoch + 1
    sums: dict[str, Moments] = {}
    num_good: list[tf.Tensor] = []
    with EpochProgress(loop.console, "batch norm statistics", count) as progress:
        for number, batch in enumerate(batches):
            step = tf.constant(np.int64(first + number))
            result = loop.phase.statistics_step(batch, step, batch_size, tf.constant(bool(loop.stop)))
            sums = tf.nest.map_structure(tf.add, sums, result.moments) if sums else result.moments
            num_good.append(result.is_finite)
            if len(loop.process_group) > 1 and result.stop.numpy() > 0:
                loop.watch.asked_to_stop = True  # all processes read it in the same step
            if loop.must_stop:
                loop.refresh_batches = None
                return previous
            if progress.advance(batch_size):
                progress.show(number + 1, {})
    averages.refresh(sums, int(np.sum(num_good)))
    return previous


def _beginnings(loop: Loop, epoch: int) -> tf.data.Dataset:
    epochs = loop.prepared.run.training.epochs
    counts = (_num_batches(loop, is_last=is_last) for is_last in (False, True))
    return loop.prepared.train_pipeline.beginnings(epochs, epoch, *counts)


def _is_due(loop: Loop) -> bool:
    is_auto = loop.prepared.run.network.batch_norm_momentum == "auto"
    return is_auto and loop.prepared.step_setup.network.moving_statistics.any_trainable and not loop.must_stop


def _num_batches(loop: Loop, is_last: bool) -> int:
    batch_size = loop.prepared.run.training.batch_size
    num_full = len(loop.prepared.train) // batch_size
    return max(1, min(-(-NUM_IMAGES // batch_size), num_full if is_last else int(MAX_FRACTION * num_full)))
