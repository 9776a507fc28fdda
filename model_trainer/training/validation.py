"""Validation: runs the network on every validation image once, and computes the metrics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from model_trainer.pipeline.dataset import num_steps
from model_trainer.training.loop import Loop
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.prediction_collector import PredictionCollector
from model_trainer.training.progress import EpochProgress
from model_trainer.training.step_types import LOSS

__all__ = ["validate"]


def validate(loop: Loop, batches: Iterator[Any]) -> dict[str, float]:
    """Returns the validation metrics by name; empty if training was asked to stop.

    Args:
        batches: the batches of all remaining validations; this one takes those of one pass.
    """
    run = loop.prepared.run
    num_images = len(loop.prepared.val or ())
    loop.callbacks.on_test_begin()
    totals = MetricAccumulator(run.task.additive_metrics)
    collector = PredictionCollector(run.task, loop.prepared.step_setup.strategy)
    count = num_steps(num_images, run.training.batch_size)
    with EpochProgress(loop.console, "validation", count) as progress:
        for position, batch in enumerate(itertools.islice(batches, count)):
            size = loop.rows_at(position, num_images)
            if loop.calls_back_each_batch:
                loop.callbacks.on_test_batch_begin(position)
            result = loop.validation_step(batch, size, tf.constant(bool(loop.stop)))
            totals.add(result.sums)
            collector.add(result.predictions)
            if loop.calls_back_each_batch:
                loop.callbacks.on_test_batch_end(position, totals.metrics())
            if progress.advance(size):
                progress.show(position + 1, totals.metrics())
            if len(loop.process_group) > 1 and result.stop.numpy() > 0:
                loop.watch.asked_to_stop = True  # all processes read it in the same step
            if loop.must_stop:
                return {}
    loop.thresholds = collector.thresholds()
    values = totals.metrics() | collector.metrics()
    metrics = {name: values[name] for name in (LOSS, *(metric.name for metric in run.task.metrics)) if name in values}
    loop.callbacks.on_test_end(metrics)
    return metrics
