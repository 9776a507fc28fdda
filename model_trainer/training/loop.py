"""The loop: epochs of steps, then validation, then files. Written to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.errors import DivergedError
from model_trainer.models.layers import unfreeze
from model_trainer.models.training_copy import copy_weights
from model_trainer.pipeline.dataset import num_steps
from model_trainer.training.best_models import BestModels
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.state import capture, restore_callbacks, restore_loop
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.collected import Collected
from model_trainer.training.gradients import Clip
from model_trainer.training.history import Row
from model_trainer.training.optimizers import make_optimizer
from model_trainer.training.prepare import Prepared
from model_trainer.training.progress import EpochProgress, format_figures, format_seconds
from model_trainer.training.run_folder import Logs, RunFolder
from model_trainer.training.signals import StopRequest
from model_trainer.training.step import LOSS, make_train_step, make_validation_step
from model_trainer.training.totals import Totals

__all__ = ["Loop", "make_loop", "train_epochs", "train_steps"]


@dataclass
class _Phase:
    """What changes when frozen layers join in: the optimizer, its rate, and the step compiled for both."""

    learning_rate: float
    optimizer: keras.optimizers.Optimizer
    step: Any


@dataclass
class Loop:
    """State of the loop."""

    prepared: Prepared
    folder: RunFolder
    logs: Logs
    console: Console
    stop: StopRequest
    callbacks: keras.callbacks.CallbackList
    calls_back_each_step: bool
    phase: _Phase
    best: BestModels
    saver: Saver
    history: list[Row] = field(default_factory=list)
    thresholds: tuple[float, ...] | None = None  # fitted by the last validation
    unfrozen: bool = False
    epoch_started: float = 0.0
    resumed_seconds: float = 0.0  # that the running epoch took before it was resumed

    @property
    def steps_per_epoch(self) -> int:
        return num_steps(len(self.prepared.train), self.prepared.run.training.batch_size)

    def begin_epoch(self) -> None:
        """Starts the epoch's clock."""
        self.epoch_started = time.monotonic()

    def epoch_seconds(self) -> float:
        """How long the running epoch takes by now."""
        return self.resumed_seconds + time.monotonic() - self.epoch_started

    def unfreeze(self) -> None:
        """Lets the frozen layers train, with an optimizer that begins anew."""
        declared = self.prepared.run.network.unfreeze
        assert declared is not None
        unfreeze(self.prepared.parts.network.model, self.prepared.frozen)
        with self.prepared.parts.strategy.scope():
            optimizer = make_optimizer(self.prepared.run.training.optimizer, declared.learning_rate)
        self.phase = _make_phase(self.prepared, optimizer, declared.learning_rate)
        self.prepared.parts.network.model.optimizer = self.phase.optimizer
        self.unfrozen = True


def train_epochs(
    prepared: Prepared,
    folder: RunFolder,
    logs: Logs,
    console: Console,
    stop: StopRequest,
    checkpoint: Checkpoint | None = None,
) -> Loop:
    """Trains, and writes history, best models and a checkpoint into `folder` after each epoch.

    Args:
        checkpoint: where to go on; None begins at the first step.

    Returns:
        The loop at its end, with one row of history for each epoch that was done; fewer when stopped early.

    Raises:
        DivergedError: the loss is no longer a number.
        DataError: too many images could not be read.
    """
    loop = make_loop(prepared, folder, logs, console, stop)
    run, strategy = prepared.run, prepared.parts.strategy
    first_epoch, first_position = (checkpoint.epoch, checkpoint.position) if checkpoint else (0, 0)
    totals = restore_loop(loop, checkpoint) if checkpoint else Totals(run.task.counted_metrics)
    first_step = first_epoch * loop.steps_per_epoch + first_position
    batches = iter(_divided(prepared.train_pipeline.training(run.training.epochs, first_step), strategy))
    val_batches = None
    if prepared.val_pipeline is not None:
        val_batches = _divided(prepared.val_pipeline.validation(), strategy)
    validation_step = make_validation_step(prepared.parts)

    loop.callbacks.on_train_begin()
    if checkpoint is not None:
        restore_callbacks(loop, checkpoint)
        logging.info("resumed at step %d of epoch %d", first_position, first_epoch + 1)
    with loop.saver:
        for epoch in range(first_epoch, run.training.epochs):
            loop.begin_epoch()
            _unfreeze_when_due(loop, epoch)
            if first_position == 0:
                loop.callbacks.on_epoch_begin(epoch)
            done = train_steps(loop, epoch, batches, range(first_position, loop.steps_per_epoch), totals)
            validated = _validate(loop, val_batches, validation_step) if val_batches and not stop else {}
            if stop:
                loop.saver.save(partial(capture, loop, epoch, done, totals))
                break
            figures = totals.figures()
            _check_finite(figures, epoch)
            prepared.bad_images.check()
            _finish_epoch(loop, epoch, figures | {f"val_{name}": value for name, value in validated.items()})
            first_position, totals, loop.resumed_seconds = 0, Totals(run.task.counted_metrics), 0.0
            ends_early = prepared.parts.network.model.stop_training
            finished = ends_early or epoch + 1 == run.training.epochs
            loop.saver.save(partial(capture, loop, epoch + 1, 0, totals, finished=finished))
            if stop or ends_early:
                break
    loop.callbacks.on_train_end()
    return loop


def make_loop(prepared: Prepared, folder: RunFolder, logs: Logs, console: Console, stop: StopRequest) -> Loop:
    """The loop before its first step: optimizer, compiled step and callbacks."""
    phase = _make_phase(prepared, prepared.optimizer, prepared.run.training.learning_rate)
    model = prepared.parts.network.model
    model.optimizer = phase.optimizer  # where Keras' callbacks look for it
    model.stop_training = False
    steps = num_steps(len(prepared.train), prepared.run.training.batch_size)
    params = {"epochs": prepared.run.training.epochs, "steps": steps, "verbose": 0}
    return Loop(
        prepared=prepared,
        folder=folder,
        logs=logs,
        console=console,
        stop=stop,
        callbacks=keras.callbacks.CallbackList(prepared.callbacks, model=model, **params),
        calls_back_each_step=any(_overrides_a_batch_hook(callback) for callback in prepared.callbacks),
        phase=phase,
        best=BestModels(prepared.run.task.metrics),
        saver=Saver(folder.path / "checkpoints"),
    )


def train_steps(loop: Loop, epoch: int, batches: Iterator[Any], positions: range, totals: Totals) -> int:
    """Takes the steps at `positions` of an epoch and adds their sums to `totals`; ends early when asked to stop.

    Returns:
        How many steps of the epoch are done.
    """
    training = loop.prepared.run.training
    num_images = len(loop.prepared.train)
    with EpochProgress(loop.console, f"epoch {epoch + 1}/{training.epochs}", len(positions)) as progress:
        for position in positions:
            step = epoch * loop.steps_per_epoch + position
            _set_learning_rate(loop, step)
            if loop.calls_back_each_step:
                loop.callbacks.on_train_batch_begin(position)
            totals.add(loop.phase.step(next(batches), tf.constant(step, tf.int64)))
            if loop.calls_back_each_step:
                loop.callbacks.on_train_batch_end(position, totals.figures())
            first_image = position * training.batch_size
            is_due = progress.advance(min(training.batch_size, num_images - first_image))
            if is_due or position == positions[-1]:
                _show(loop, progress, epoch, step, position, totals)
            if loop.stop:
                return position + 1
            loop.saver.save_when_due(partial(capture, loop, epoch, position + 1, totals))
    return positions.stop


def _validate(loop: Loop, batches: Iterable[Any], validation_step: Any) -> dict[str, float]:
    run = loop.prepared.run
    num_images = len(loop.prepared.val or ())
    loop.callbacks.on_test_begin()
    totals = Totals(run.task.counted_metrics)
    collected = Collected(run.task, loop.prepared.parts.strategy)
    with EpochProgress(loop.console, "validation", num_steps(num_images, run.training.batch_size)) as progress:
        for position, batch in enumerate(batches):
            sums, predictions = validation_step(batch)
            totals.add(sums)
            collected.add(predictions)
            if progress.advance(run.training.batch_size):
                progress.show(position + 1, totals.figures())
            if loop.stop:
                return {}
    loop.thresholds = collected.thresholds()
    found = totals.figures() | collected.figures()
    figures = {name: found[name] for name in (LOSS, *(metric.name for metric in run.task.metrics)) if name in found}
    loop.callbacks.on_test_end(figures)
    return figures


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
        plain = loop.prepared.started.built.model
        copy_weights(loop.prepared.parts.network.model, plain)
        loop.folder.save_model(plain, name, loop.thresholds)
    loop.folder.write_history(loop.history, title=run.name)


def _make_phase(prepared: Prepared, optimizer: keras.optimizers.Optimizer, learning_rate: float) -> _Phase:
    clip = Clip.of(prepared.run.training.optimizer)
    with prepared.parts.strategy.scope():
        if prepared.precision == "mixed_float16" and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(prepared.parts.network.model.trainable_variables)
    return _Phase(learning_rate, optimizer, make_train_step(prepared.parts, optimizer, clip))


def _unfreeze_when_due(loop: Loop, epoch: int) -> None:
    declared = loop.prepared.run.network.unfreeze
    if declared is None or loop.unfrozen or epoch < declared.after_epochs or not loop.prepared.frozen:
        return
    loop.unfreeze()
    logging.info("%d frozen layers train from here on.", len(loop.prepared.frozen))


def _set_learning_rate(loop: Loop, step: int) -> None:
    training = loop.prepared.run.training
    if not training.schedule.moves:
        return  # a callback of the user may have set it
    factor = training.schedule.factor(step, loop.steps_per_epoch, training.epochs, loop.history)
    loop.phase.optimizer.learning_rate = loop.phase.learning_rate * factor


def _show(loop: Loop, progress: EpochProgress, epoch: int, step: int, position: int, totals: Totals) -> None:
    figures = totals.figures()
    _check_finite(figures, epoch)
    progress.show(position + 1, figures)
    rate = progress.images_per_second
    loop.logs.write("step", step + 1, {**figures, "epoch": epoch + 1, "images_per_second": rate})
    loop.prepared.bad_images.check()


def _check_finite(figures: dict[str, float], epoch: int) -> None:
    if not math.isfinite(figures["loss"]):
        raise DivergedError(
            f"The loss of epoch {epoch + 1} is {figures['loss']}: training diverged. "
            "Lower the rate, such as --set training.learning_rate=1e-5, or limit the gradients, "
            "such as --set training.optimizer.clip_norm=1."
        )


def _divided(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterable[Any]:
    """The batches, each already divided over the strategy's devices."""
    if strategy.num_replicas_in_sync == 1:
        return dataset
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def _overrides_a_batch_hook(callback: keras.callbacks.Callback) -> bool:
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    return any(getattr(type(callback), hook) is not getattr(keras.callbacks.Callback, hook) for hook in hooks)
