"""Epochs of steps, then validation, then files. Written to be read from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.models.training_copy import copy_weights
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.state import capture, restore, restore_callbacks
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.loop import Loop, Place, make_loop
from model_trainer.training.prepare import Prepared
from model_trainer.training.progress import EpochProgress, format_figures, format_seconds
from model_trainer.training.rollback import go_back
from model_trainer.training.run_folder import Logs, RunFolder
from model_trainer.training.signals import StopRequest
from model_trainer.training.statistics import refresh_statistics
from model_trainer.training.totals import Totals
from model_trainer.training.validation import validate
from model_trainer.training.watch import Diverging

__all__ = ["train_epochs", "train_steps"]


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
    place = Place(0, 0, Totals(prepared.run.task.counted_metrics))
    if checkpoint is not None:
        place = restore(loop, checkpoint)
    loop.callbacks.on_train_begin()
    if checkpoint is not None:
        restore_callbacks(loop, checkpoint)
        if place.epoch < prepared.run.training.epochs and not loop.model.stop_training:
            logging.info("resumed at step %d of epoch %d", place.position, place.epoch + 1)
        else:
            logging.info("resumed after the last epoch: only the final model is missing")
    else:
        loop.begin_epoch()
        loop.beginning = capture(loop, place)
    while True:
        try:
            _train_from(loop, place)
            break
        except Diverging as found:
            place = go_back(loop, found)
    if loop.average is not None:
        loop.average.assign()
    loop.callbacks.on_train_end()
    return loop


def _train_from(loop: Loop, place: Place) -> None:
    """Epochs from `place` to the end, or to where training was asked to stop."""
    prepared, epochs = loop.prepared, loop.prepared.run.training.epochs
    first_step = place.epoch * loop.steps_per_epoch + place.position
    batches = iter(prepared.divided(prepared.train_pipeline.training(epochs, first_step)))
    val_batches = prepared.divided(prepared.val_pipeline.validation()) if prepared.val_pipeline is not None else None
    position, totals = place.position, place.totals
    for epoch in range(place.epoch, 0 if loop.model.stop_training else epochs):
        loop.begin_epoch()
        loop.unfreeze_when_due(epoch)
        if position == 0:
            loop.callbacks.on_epoch_begin(epoch)
        done = train_steps(loop, epoch, batches, range(position, loop.steps_per_epoch), totals)
        loop.watch.catch_up()
        with loop.weights_to_judge():
            statistics = refresh_statistics(loop, epoch)
            validated = validate(loop, val_batches) if val_batches is not None and not loop.must_stop else {}
            # Asked once: a signal that comes from here on finds an epoch that is finished.
            is_stopped = loop.must_stop
            if not is_stopped:
                prepared.check_bad_images()
                if loop.average is not None:
                    loop.average.adopt_statistics()
                _finish_epoch(loop, epoch, totals.figures() | {f"val_{name}": each for name, each in validated.items()})
            else:
                prepared.parts.network.averages.assign(statistics)  # the resumed run refreshes them again
        if is_stopped:
            loop.saver.save(partial(capture, loop, Place(epoch, done, totals)))
            return
        if epoch:
            loop.beginning = None  # two checkpoints are on the disk by now
        position, totals, loop.resumed_seconds = 0, Totals(prepared.run.task.counted_metrics), 0.0
        loop.saver.save(partial(capture, loop, Place(epoch + 1, 0, totals)))
        if loop.model.stop_training:
            if epoch + 1 < epochs:
                logging.info("A callback ended the run after epoch %d of %d.", epoch + 1, epochs)
            break
        if loop.must_stop and epoch + 1 < epochs:
            return
    # Taken now, because what follows may change the network, such as to its best weights.
    loop.begin_epoch()
    loop.ending = capture(loop, Place(len(loop.history), 0, totals), finished=True)


def train_steps(loop: Loop, epoch: int, batches: Iterator[Any], positions: range, totals: Totals) -> int:
    """Takes the steps at `positions` of an epoch and adds their sums to `totals`; ends early when asked to stop.

    Returns:
        How many steps of the epoch are done.

    Raises:
        Diverging: training has to go back.
    """
    training, num_images = loop.prepared.run.training, len(loop.prepared.train)
    done = loop.steps_per_epoch
    title = f"epoch {epoch + 1}/{training.epochs}"
    with EpochProgress(loop.console, title, loop.steps_per_epoch, positions.start) as progress:
        for position in positions:
            step = epoch * loop.steps_per_epoch + position
            size = loop.rows_at(position, num_images)
            batch = next(batches)
            if step not in loop.skipped:
                loop.set_learning_rate(step)
                if loop.calls_back_each_step:
                    loop.callbacks.on_train_batch_begin(position)
                # NumPy's numbers, because TensorFlow keeps a tensor of every plain number that it is given.
                taken = loop.phase.step(batch, tf.constant(np.int64(step)), size, tf.constant(bool(loop.stop)))
                totals.add(taken.sums)
                loop.watch.add(step, taken.signs)
                if loop.calls_back_each_step:
                    loop.callbacks.on_train_batch_end(position, totals.figures())
            if progress.advance(size) or position == loop.steps_per_epoch - 1:
                _show(loop, progress, epoch, step, position, totals)
            if loop.must_stop:
                done = position + 1
                break
            loop.saver.save_when_due(partial(capture, loop, Place(epoch, position + 1, totals)))
    return done


def _finish_epoch(loop: Loop, epoch: int, figures: dict[str, float]) -> None:
    """Notes the figures, tells the callbacks and writes what an epoch leaves."""
    run, seconds = loop.prepared.run, loop.epoch_seconds()
    rate = float(loop.phase.optimizer.learning_rate.numpy())
    loop.callbacks.on_epoch_end(epoch, {**figures, "learning_rate": rate})
    row = {"epoch": float(epoch + 1), **figures, "learning_rate": rate, "seconds": seconds}
    loop.history.append(row)
    loop.logs.write("epoch", (epoch + 1) * loop.steps_per_epoch, row)
    logging.info(
        "epoch %d/%d  %s  %s", epoch + 1, run.training.epochs, format_figures(figures), format_seconds(seconds)
    )
    for name in loop.best.improved(row):
        plain = loop.prepared.plain.network.model
        copy_weights(loop.model, plain)
        loop.folder.save_model(plain, name, loop.thresholds)
    loop.folder.write_history(loop.history, title=run.name)


def _show(loop: Loop, progress: EpochProgress, epoch: int, step: int, position: int, totals: Totals) -> None:
    figures = totals.figures()
    progress.show(position + 1, figures)
    rate = progress.images_per_second
    loop.logs.write("step", step + 1, {**figures, "epoch": epoch + 1, "images_per_second": rate})
    if len(loop.team) == 1:
        loop.prepared.bad_images.check()
