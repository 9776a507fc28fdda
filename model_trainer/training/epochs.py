"""Epochs of steps, then validation, then files. Written to be read from top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.config import Call, Live
from model_trainer.errors import StorageError
from model_trainer.network.training_copy import copy_weights
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.state import capture, restore, restore_callbacks
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.hints import takes_long
from model_trainer.training.keras_callbacks import restored_epoch
from model_trainer.training.loop import EpochPosition, Loop, make_loop
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.metrics_log import Logs
from model_trainer.training.prepare import Prepared
from model_trainer.training.progress import EpochProgress, format_metrics, format_seconds
from model_trainer.training.rollback import go_back
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import StopRequest
from model_trainer.training.statistics import refresh_statistics
from model_trainer.training.step_types import LOSS
from model_trainer.training.validation import validate
from model_trainer.training.watch import Diverging

__all__ = ["train_epochs", "train_steps"]

SECONDS_TO_JUDGE = 20.0  # after which images per second say how long a run takes


def train_epochs(
    prepared: Prepared,
    folder: RunFolder,
    logs: Logs,
    console: Console,
    stop: StopRequest,
    saver: Saver,
    checkpoint: Checkpoint | None = None,
) -> Loop:
    """Trains, and writes history, best models and a checkpoint into `folder` after each epoch.

    Args:
        saver: open; the caller waits for it.
        checkpoint: where to go on; None begins at the first step.

    Returns:
        The loop at its end, with one row of history for each epoch that was done; fewer when stopped early. The network
        has the weights that are to be saved.

    Raises:
        DivergedError: the loss is no longer a number, or shot up, too often.
        DataError: too many images could not be read.
    """
    loop = make_loop(prepared, folder, logs, console, stop, saver)
    place = EpochPosition(0, 0, MetricAccumulator(prepared.run.task.additive_metrics))
    if checkpoint is not None:
        place = restore(loop, checkpoint)
    loop.callbacks.on_train_begin()
    if checkpoint is not None:
        restore_callbacks(loop, checkpoint, is_resumed=True)
        if place.epoch < prepared.run.training.epochs and not loop.model.stop_training:
            logging.info("resumed at step %d of epoch %d", place.position, place.epoch + 1)
        else:
            logging.info("resumed after the last epoch: only the final model is missing")
    else:
        loop.begin_epoch()
        loop.beginning = capture(loop, place)
    try:
        while True:
            try:
                _train_from(loop, place)
                break
            except Diverging as found:
                place = go_back(loop, found)
    except Exception:
        with contextlib.suppress(StorageError):  # the first error is the one to be told
            loop.write_history(with_curves=True)
        with contextlib.suppress(tf.errors.OpError):
            loop.observers.log_all()
        raise
    loop.write_history(with_curves=True)
    if loop.average is not None:
        loop.average.assign()
    if isinstance(prepared.run.training.optimizer, (Call, Live)):
        with prepared.parts.strategy.scope():  # one with use_ema=True gives the network its averages, as in `fit`
            loop.phase.optimizer.finalize_variable_values(loop.model.trainable_variables)
    last = loop.history[-1] if loop.history else {}
    for number, callback in enumerate(prepared.callbacks):
        if restored_epoch(callback) is not None:  # they belong to the weights that it gives back now
            loop.thresholds = loop.best_thresholds.get(number, loop.thresholds)
    loop.callbacks.on_train_end({name: value for name, value in last.items() if name not in ("epoch", "seconds")})
    return loop


def _train_from(loop: Loop, place: EpochPosition) -> None:
    """Epochs from `place` to the end, or to where training was asked to stop."""
    prepared, epochs = loop.prepared, loop.prepared.run.training.epochs
    first_step = place.epoch * loop.steps_per_epoch + place.position
    batches = iter(prepared.divided(prepared.train_pipeline.training(epochs, first_step)))
    val_batches: Iterator[Any] | None = None  # made when they are needed: the first step waits half a second less
    position, totals = place.position, place.totals
    # A callback that ended the run leaves the epoch to be validated in which it did.
    ended = loop.model.stop_training
    for epoch in range(place.epoch, place.epoch + (position > 0) if ended else epochs):
        loop.begin_epoch()
        loop.unfreeze_when_due(epoch)
        if position == 0:
            loop.callbacks.on_epoch_begin(epoch)
            loop.check_rate()
        positions = range(0) if ended else range(position, loop.steps_per_epoch)
        done = train_steps(loop, epoch, batches, positions, totals)
        try:
            loop.observers.catch_up()
        except Diverging:
            if not loop.model.stop_training:
                raise
        if val_batches is None and prepared.val_pipeline is not None:
            # All passes in one stream: to begin one anew takes a quarter of a second.
            val_batches = iter(prepared.divided(prepared.val_pipeline.validation(passes=epochs - epoch)))
        with loop.weights_to_validate():
            statistics = refresh_statistics(loop, epoch)
            validated = validate(loop, val_batches) if val_batches is not None and not loop.must_stop else {}
            # Asked once: a signal that comes from here on finds an epoch that is finished.
            is_stopped = loop.must_stop
            if not is_stopped:
                prepared.check_bad_images()
                if loop.average is not None:
                    loop.average.adopt_statistics()
                _finish_epoch(loop, epoch, totals.metrics() | {f"val_{name}": each for name, each in validated.items()})
            else:
                prepared.parts.network.averages.assign(statistics)  # the resumed run refreshes them again
        if is_stopped:
            loop.saver.save(partial(capture, loop, EpochPosition(epoch, done, totals)))
            return
        if epoch:
            loop.beginning = None  # two checkpoints are on the disk by now
        position, totals, loop.resumed_seconds = 0, MetricAccumulator(prepared.run.task.additive_metrics), 0.0
        loop.saver.save(partial(capture, loop, EpochPosition(epoch + 1, 0, totals)))
        if loop.model.stop_training:
            if epoch + 1 < epochs:
                logging.info("A callback ended the run after epoch %d of %d.", epoch + 1, epochs)
            break
        if loop.must_stop and epoch + 1 < epochs:
            return
    # Now, because what follows may change the network, such as to its best weights.
    loop.begin_epoch()
    loop.ending = capture(loop, EpochPosition(len(loop.history), 0, totals), finished=True)


def train_steps(loop: Loop, epoch: int, batches: Iterator[Any], positions: range, totals: MetricAccumulator) -> int:
    """Takes the steps at `positions` of an epoch and adds their sums to `totals`; ends early when asked to stop.

    Returns:
        How many steps of the epoch are done.

    Raises:
        Diverging: training has to go back.
    """
    training, num_images = loop.prepared.run.training, len(loop.prepared.train)
    done = loop.steps_per_epoch
    title = f"epoch {epoch + 1}/{training.epochs}"
    beginning = "" if loop.phase.is_compiled else "building the graph ..."
    with EpochProgress(loop.console, title, loop.steps_per_epoch, beginning) as progress:
        for position in positions:
            step = epoch * loop.steps_per_epoch + position
            size = loop.rows_at(position, num_images)
            batch = next(batches)
            if step not in loop.skipped:
                if loop.calls_back_each_step:
                    loop.callbacks.on_train_batch_begin(position)
                loop.set_learning_rate(step)
                # NumPy's numbers, because TensorFlow keeps a tensor of every plain number that it is given.
                result = loop.phase.step(batch, tf.constant(np.int64(step)), size, tf.constant(bool(loop.stop)))
                loop.phase.is_compiled = True
                totals.add(result.sums)
                loop.observers.add(step, result.observed)
                if loop.calls_back_each_step:
                    loop.callbacks.on_train_batch_end(position, _metrics_after(totals, result.scalars))
            if progress.advance(size) or position == loop.steps_per_epoch - 1:
                _show(loop, progress, epoch, step, position, totals)
            if loop.must_stop:
                done = position + 1
                break
            if loop.model.stop_training:
                break  # a callback ends the run with this step: the epoch is validated and saved as it is
            loop.saver.save_when_due(partial(capture, loop, EpochPosition(epoch, position + 1, totals)))
    return done


def _metrics_after(totals: MetricAccumulator, scalars: dict[str, tf.Tensor]) -> dict[str, float]:
    """The metrics of the epoch so far, as `fit` gives them to callbacks: without a loss where a step had none."""
    return totals.metrics() | ({} if np.isfinite(scalars["loss_sum"]) else {LOSS: float("nan")})


def _finish_epoch(loop: Loop, epoch: int, metrics: dict[str, float]) -> None:
    """Notes the metrics, tells the callbacks and writes what an epoch leaves."""
    run, seconds = loop.prepared.run, loop.epoch_seconds()
    loop.check_rate()
    rate = float(loop.phase.optimizer.learning_rate.numpy())
    loop.callbacks.on_epoch_end(epoch, {**metrics, "learning_rate": rate})
    for number, callback in enumerate(loop.prepared.callbacks):
        if loop.thresholds is not None and epoch == restored_epoch(callback):
            loop.best_thresholds[number] = loop.thresholds
    row = {"epoch": float(epoch + 1), **metrics, "learning_rate": rate, "seconds": seconds}
    loop.history.append(row)
    loop.logs.write("epoch", (epoch + 1) * loop.steps_per_epoch, row)
    logging.info(
        "epoch %d/%d  %s  %s", epoch + 1, run.training.epochs, format_metrics(metrics), format_seconds(seconds)
    )
    if len(loop.history) == 1:
        judged = loop.prepared.train if loop.prepared.val is None else loop.prepared.val
        baseline = run.task.majority_baseline(judged)
        if baseline is not None:
            metric = run.task.metrics[0].name
            logging.info("Always saying %r would reach an %s of %.4f.", baseline[1], metric, baseline[0])
    before = loop.best.epochs
    for name in loop.best.improved(row):
        plain = loop.prepared.plain.network.model
        copy_weights(loop.model, plain)
        loop.folder.save_best(plain, name, loop.thresholds, before[name])
    loop.write_history()


def _show(loop: Loop, progress: EpochProgress, epoch: int, step: int, position: int, totals: MetricAccumulator) -> None:
    metrics, images_left = totals.metrics(), loop.images_left(epoch, position + 1)
    progress.show(position + 1, metrics, images_left)
    rate = progress.images_per_second
    if not loop.time_is_logged and progress.seconds_since_first > SECONDS_TO_JUDGE:
        loop.time_is_logged = True
        hint = "" if loop.has_gpu else takes_long(loop.prepared.run, rate, images_left / rate)
        if hint and loop.process_group.is_chief:
            logging.warning("%s", hint)
    loop.logs.write("step", step + 1, {**metrics, "epoch": epoch + 1, "images_per_second": rate})
    if len(loop.process_group) == 1:
        loop.prepared.bad_images.check()
