"""The loop over epochs: training steps, validation, model files, checkpoint. Written to be read from top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.display.notebook import in_notebook
from model_trainer.errors import StorageError
from model_trainer.network.training_copy import copy_weights
from model_trainer.storage import files
from model_trainer.training.batch_norm_statistics import refresh_batch_norm_statistics
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.state import capture, restore, restore_callbacks
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.hints import slow_training_hint
from model_trainer.training.keras_callbacks import restored_epoch, set_run
from model_trainer.training.loop import EpochPosition, Loop, make_loop
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.metrics_log import MetricsLog
from model_trainer.training.prepare import PreparedRun
from model_trainer.training.progress import EpochProgress, format_metrics, format_seconds, metric_line
from model_trainer.training.rollback import roll_back
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import StopRequest
from model_trainer.training.step_types import LOSS
from model_trainer.training.validation import validate
from model_trainer.training.watch import Diverging
from model_trainer.user_code import Call, Live

__all__ = ["train_epochs", "train_steps"]

SECONDS_BEFORE_ESTIMATE = 20.0  # after which images per second predict how long a run takes


def train_epochs(
    prepared: PreparedRun,
    folder: RunFolder,
    logs: MetricsLog,
    console: Console,
    stop: StopRequest,
    saver: Saver,
    checkpoint: Checkpoint | None = None,
) -> Loop:
    """Trains a run, and writes history, best models and a checkpoint to `folder` after each epoch.

    Args:
        stop: checked after each step; once it is set, training saves a checkpoint and returns.
        saver: an entered context manager; the caller exits it, which waits for the last checkpoint.
        checkpoint: where to resume; None starts at the first step.

    Returns:
        The loop at its end, with one row of history for each finished epoch; fewer if training was stopped early. The
        network has the weights to save.

    Raises:
        DivergedError: the loss was not finite, or spiked, more often than is tolerated.
        DataError: too many images could not be read.
    """
    loop = make_loop(prepared, folder, logs, console, stop, saver)
    start = EpochPosition(0, 0, MetricAccumulator(prepared.run.task.additive_metrics))
    if checkpoint is not None:
        start = restore(loop, checkpoint)
    loop.callbacks.on_train_begin()
    if checkpoint is not None:
        restore_callbacks(loop, checkpoint, is_resumed=True)
        if start.epoch < prepared.run.training.epochs and not loop.model.stop_training:
            logging.info("resumed at step %d of epoch %d", start.position, start.epoch + 1)
        else:
            logging.info("resumed after the last epoch: only the final model is missing")
    else:
        loop.start_clock()
        loop.initial_checkpoint = capture(loop, start)
    if prepared.process_group.is_chief:
        set_run(prepared.callbacks, prepared.run, folder.path)
    try:
        while True:
            try:
                _train_from(loop, start)
                break
            except Diverging as diverging:
                start = roll_back(loop, diverging)
    except Exception:
        with contextlib.suppress(StorageError):  # the first error is the one to report
            loop.write_history(with_curves=True)
        with contextlib.suppress(tf.errors.OpError):
            loop.observers.log_all()
        raise
    loop.write_history(with_curves=True)
    if loop.weight_average is not None:
        loop.weight_average.assign()
    if isinstance(prepared.run.training.optimizer, (Call, Live)):
        with prepared.step_setup.strategy.scope():  # with use_ema=True it assigns averages to the network, as in `fit`
            loop.phase.optimizer.finalize_variable_values(loop.model.trainable_variables)
    last_row = loop.history[-1] if loop.history else {}
    for index, callback in enumerate(prepared.callbacks):
        if restored_epoch(callback) is not None:  # the thresholds belong to the weights that it restores now
            loop.thresholds = loop.best_thresholds.get(index, loop.thresholds)
    loop.callbacks.on_train_end({name: value for name, value in last_row.items() if name not in ("epoch", "seconds")})
    return loop


def _train_from(loop: Loop, start: EpochPosition) -> None:
    """Trains the epochs from `start` to the end, or until training is asked to stop."""
    prepared, epochs = loop.prepared, loop.prepared.run.training.epochs
    first_step = start.epoch * loop.steps_per_epoch + start.position
    batches = iter(prepared.distributed(prepared.train_pipeline.training(epochs, first_step)))
    val_batches: Iterator[Any] | None = None  # made when needed: the first step starts half a second earlier
    position, totals = start.position, start.totals
    # If a callback ended the run within an epoch, only the validation of this epoch is left.
    has_ended = loop.model.stop_training
    for epoch in range(start.epoch, start.epoch + (position > 0) if has_ended else epochs):
        loop.start_clock()
        loop.unfreeze_when_due(epoch)
        if position == 0:
            loop.callbacks.on_epoch_begin(epoch)
            loop.check_learning_rate()
        positions = range(0) if has_ended else range(position, loop.steps_per_epoch)
        steps_done = train_steps(loop, epoch, batches, positions, totals)
        try:
            loop.observers.catch_up()
        except Diverging:
            if not loop.model.stop_training:
                raise
        if val_batches is None and prepared.val_pipeline is not None:
            # One iterator for all epochs: a new one takes a quarter of a second to start.
            val_batches = iter(prepared.distributed(prepared.val_pipeline.validation(passes=epochs - epoch)))
        with loop.weights_to_validate():
            statistics = refresh_batch_norm_statistics(loop, epoch)
            val_metrics = validate(loop, val_batches) if val_batches is not None and not loop.must_stop else {}
            # Read only once: if a signal comes later, the epoch counts as finished.
            is_stopped = loop.must_stop
            if not is_stopped:
                prepared.check_bad_images()
                if loop.weight_average is not None:
                    loop.weight_average.adopt_statistics()
                metrics = totals.metrics() | {f"val_{name}": value for name, value in val_metrics.items()}
                _finish_epoch(loop, epoch, metrics)
            else:
                prepared.step_setup.network.moving_statistics.assign(statistics)  # the resumed run refreshes them again
        if is_stopped:
            loop.saver.save(partial(capture, loop, EpochPosition(epoch, steps_done, totals)))
            return
        if epoch:
            loop.initial_checkpoint = None  # by now two checkpoints are on disk
        position, totals, loop.resumed_seconds = 0, MetricAccumulator(prepared.run.task.additive_metrics), 0.0
        loop.saver.save(partial(capture, loop, EpochPosition(epoch + 1, 0, totals)))
        if loop.model.stop_training:
            if epoch + 1 < epochs:
                logging.info("A callback ended the run after epoch %d of %d.", epoch + 1, epochs)
            break
        if loop.must_stop and epoch + 1 < epochs:
            return
    # Captured before callbacks change the weights, for example to those of the best epoch.
    loop.start_clock()
    loop.final_checkpoint = capture(loop, EpochPosition(len(loop.history), 0, totals), finished=True)


def train_steps(loop: Loop, epoch: int, batches: Iterator[Any], positions: range, totals: MetricAccumulator) -> int:
    """Runs the steps at `positions` of an epoch and adds their sums to `totals`; returns early if asked to stop.

    Returns:
        The number of finished steps of the epoch.

    Raises:
        Diverging: training must roll back.
    """
    training, num_images = loop.prepared.run.training, len(loop.prepared.train)
    steps_done = loop.steps_per_epoch
    title = f"epoch {epoch + 1}/{training.epochs}"
    initial_text = "" if loop.phase.is_traced else "tracing the graph ..."
    with EpochProgress(loop.console, title, loop.steps_per_epoch, initial_text) as progress:
        for position in positions:
            step = epoch * loop.steps_per_epoch + position
            size = loop.rows_at(position, num_images)
            batch = next(batches)
            if step not in loop.skipped:
                if loop.calls_back_each_step:
                    loop.callbacks.on_train_batch_begin(position)
                loop.set_learning_rate(step)
                # A NumPy number, because TensorFlow caches a tensor for every Python number.
                result = loop.phase.step(batch, tf.constant(np.int64(step)), size, tf.constant(bool(loop.stop)))
                loop.phase.is_traced = True
                totals.add(result.sums)
                loop.observers.add(step, result.observed)
                if loop.calls_back_each_step:
                    loop.callbacks.on_train_batch_end(position, _metrics_after(totals, result.scalars))
            if progress.advance(size) or position == loop.steps_per_epoch - 1:
                _show(loop, progress, epoch, step, position, totals)
            if loop.must_stop:
                steps_done = position + 1
                break
            if loop.model.stop_training:
                break  # a callback ends the run with this step: the epoch is validated and saved as it is
            loop.saver.save_when_due(partial(capture, loop, EpochPosition(epoch, position + 1, totals)))
    return steps_done


def _metrics_after(totals: MetricAccumulator, scalars: dict[str, tf.Tensor]) -> dict[str, float]:
    """Returns the metrics of the epoch so far, for callbacks; the loss is NaN if the last step's was not finite."""
    return totals.metrics() | ({} if np.isfinite(scalars["loss_sum"]) else {LOSS: float("nan")})


def _finish_epoch(loop: Loop, epoch: int, metrics: dict[str, float]) -> None:
    """Records and logs the metrics, calls the callbacks, and writes history and best models."""
    run, seconds = loop.prepared.run, loop.epoch_seconds()
    loop.check_learning_rate()
    learning_rate = float(loop.phase.optimizer.learning_rate.numpy())
    loop.callbacks.on_epoch_end(epoch, {**metrics, "learning_rate": learning_rate})
    for index, callback in enumerate(loop.prepared.callbacks):
        if loop.thresholds is not None and epoch == restored_epoch(callback):
            loop.best_thresholds[index] = loop.thresholds
    row = {"epoch": float(epoch + 1), **metrics, "learning_rate": learning_rate, "seconds": seconds}
    loop.history.append(row)
    loop.logs.write("epoch", (epoch + 1) * loop.steps_per_epoch, row)
    logging.info(
        "epoch %d/%d  %s  %s", epoch + 1, run.training.epochs, format_metrics(metrics), format_seconds(seconds)
    )
    if loop.process_group.is_chief:
        # The log file always gets this line; on a terminal and in a notebook it would only repeat the one above.
        is_interactive = loop.console.is_terminal or in_notebook()
        logging.log(logging.DEBUG if is_interactive else logging.INFO, "%s", metric_line(row))
    if len(loop.history) == 1:
        examples = loop.prepared.train if loop.prepared.val is None else loop.prepared.val
        baseline = run.task.majority_baseline(examples)
        if baseline is not None:
            metric = run.task.metrics[0].name
            logging.info("Always predicting %r would give an %s of %.4f.", baseline[1], metric, baseline[0])
    previous_best = loop.best.epochs
    for name in loop.best.improved(row):
        plain = loop.prepared.plain.network.model
        copy_weights(loop.model, plain)
        loop.folder.save_best(plain, name, loop.thresholds, previous_best[name])
    loop.write_history()


def _show(loop: Loop, progress: EpochProgress, epoch: int, step: int, position: int, totals: MetricAccumulator) -> None:
    metrics, images_left = totals.metrics(), loop.images_left(epoch, position + 1)
    progress.show(position + 1, metrics, images_left)
    images_per_second = progress.images_per_second
    if not loop.time_is_logged and progress.seconds_since_first > SECONDS_BEFORE_ESTIMATE:
        loop.time_is_logged = True
        seconds = images_left / images_per_second
        hint = "" if loop.has_gpu else slow_training_hint(loop.prepared.run, images_per_second, seconds)
        if hint and loop.process_group.is_chief:
            logging.warning("%s", hint)
    if loop.process_group.is_chief:
        files.check_lock(loop.folder.path)
    loop.logs.write("step", step + 1, {**metrics, "epoch": epoch + 1, "images_per_second": images_per_second})
    if len(loop.process_group) == 1:
        loop.prepared.bad_images.check()
