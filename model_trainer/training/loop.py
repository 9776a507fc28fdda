"""The state of the training loop: everything that changes while a run trains."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.cluster.process_group import ProcessGroup
from model_trainer.network.layers import set_trainable
from model_trainer.network.training_copy import TrainingCopy
from model_trainer.pipeline.dataset import num_steps
from model_trainer.run.optimizers import make_optimizer
from model_trainer.training.average import WeightAverage
from model_trainer.training.best_models import BestModels
from model_trainer.training.history import Row
from model_trainer.training.keras_callbacks import has_hook
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.metrics_log import MetricsLog
from model_trainer.training.observers import LoggedObserver, Observers, named
from model_trainer.training.phase import Phase, make_phase
from model_trainer.training.prepare import PreparedRun
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import StopRequest
from model_trainer.training.step import make_validation_step
from model_trainer.training.step_types import ValidationStep
from model_trainer.training.watch import DivergenceDetector, Health

if TYPE_CHECKING:
    from model_trainer.training.checkpoints.saver import Saver
    from model_trainer.training.checkpoints.store import Checkpoint

__all__ = ["EpochPosition", "Loop", "make_loop"]

MAX_CURVES_FRACTION = 0.03  # maximum fraction of the time for drawing curves after epochs
FORWARD_FRACTION = 1 / 3  # time of a forward pass, as a fraction of a training step
STEP_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


@dataclass(frozen=True)
class EpochPosition:
    """A position in the run, between two steps.

    Attributes:
        epoch: the current one, counted from 0.
        position: number of its finished steps.
        totals: the metrics of that epoch so far.
    """

    epoch: int
    position: int
    totals: MetricAccumulator


@dataclass
class Loop:
    """The state of the training loop.

    Attributes:
        skipped: steps of the run that are skipped after a rollback.
        rollbacks: number of rollbacks so far.
        rate_cut: factor of the learning rate since the last rollback.
        initial_checkpoint: the state before the first step, while there is no checkpoint on disk to roll back to.
        final_checkpoint: the state after the last step; it is saved after all other files have been written.
    """

    prepared: PreparedRun
    folder: RunFolder
    logs: MetricsLog
    console: Console
    stop: StopRequest
    saver: Saver
    callbacks: keras.callbacks.CallbackList
    calls_back_each_step: bool  # whether any callback has hooks for training batches
    calls_back_each_batch: bool  # the same for validation batches
    phase: Phase
    weight_average: WeightAverage | None
    validation_step: ValidationStep
    best: BestModels
    watch: DivergenceDetector
    observers: Observers
    history: list[Row] = field(default_factory=list)
    thresholds: tuple[float, ...] | None = None  # fitted by the last validation
    # By index of a callback that restores the weights of its best epoch: the thresholds of that epoch.
    best_thresholds: dict[int, tuple[float, ...]] = field(default_factory=dict)
    unfrozen: bool = False
    epoch_started: float = 0.0  # time on the monotonic clock
    resumed_seconds: float = 0.0  # duration of the current epoch before it was resumed
    skipped: set[int] = field(default_factory=set)
    rollbacks: int = 0
    rate_cut: float = 1.0
    initial_checkpoint: Checkpoint | None = None
    final_checkpoint: Checkpoint | None = None
    scheduled_rate: np.float32 | None = None  # the learning rate that the schedule has set last
    rate_is_logged: bool = False
    time_is_logged: bool = False
    refresh_batches: Iterator[Any] | None = None  # for the statistics of batch normalization
    refreshed_until: int = -1  # the epoch whose batches come next in `refresh_batches`
    curves_due: float = 0.0  # time on the monotonic clock
    num_drawn: int = 0  # number of epochs in the curves

    @property
    def process_group(self) -> ProcessGroup:
        return self.prepared.process_group

    @property
    def steps_per_epoch(self) -> int:
        return num_steps(len(self.prepared.train), self.prepared.run.training.batch_size)

    @property
    def model(self) -> keras.Model:
        """The training copy of the network."""
        return self.prepared.step_setup.network.model

    @property
    def has_gpu(self) -> bool:
        """Whether it trains on a GPU; TensorFlow lists none if the run asks for the CPU."""
        return bool(tf.config.list_logical_devices("GPU"))

    @property
    def must_stop(self) -> bool:
        """Whether a signal asked to stop: this process, or any of several, which all see it after the same step."""
        return self.watch.asked_to_stop if len(self.process_group) > 1 else bool(self.stop)

    def health_ahead(self) -> Health | None:
        """Returns the detector's state after all steps so far; None if training will have to roll back."""
        return self.watch.ahead(self.observers.waiting_for_watch())

    def start_clock(self) -> None:
        """Starts to measure the duration of an epoch."""
        self.epoch_started = time.monotonic()

    def epoch_seconds(self) -> float:
        """Returns the duration of the current epoch so far."""
        return self.resumed_seconds + time.monotonic() - self.epoch_started

    def write_history(self, *, with_curves: bool = False) -> None:
        """Writes history.csv, and the curves if these are due: drawing them takes a third of a second.

        Args:
            with_curves: draws the curves if an epoch is missing in them, whether they are due or not.
        """
        started = time.monotonic()
        is_due = self.num_drawn != len(self.history) if with_curves else started >= self.curves_due
        self.folder.write_history(self.history, self.prepared.run.name, with_curves=is_due)
        if is_due:
            ended = time.monotonic()
            self.num_drawn, self.curves_due = len(self.history), ended + (ended - started) / MAX_CURVES_FRACTION

    def rows_at(self, position: int, num_examples: int) -> int:
        """Returns the number of rows in the batch at a position of an epoch."""
        batch_size = self.prepared.run.training.batch_size
        return min(batch_size, num_examples - position * batch_size)

    def images_left(self, epoch: int, steps_done: int) -> float:
        """Returns the number of images until the end of the run; a validation image counts as a fraction of one."""
        training, num_images = self.prepared.run.training, len(self.prepared.train)
        in_epoch = max(0, num_images - steps_done * training.batch_size)
        in_validation = FORWARD_FRACTION * len(self.prepared.val or ())
        return in_epoch + in_validation + (training.epochs - epoch - 1) * (num_images + in_validation)

    @contextlib.contextmanager
    def weights_to_validate(self) -> Iterator[None]:
        """In the `with` block the network has the weights to validate and save: with `ema_decay`, their averages."""
        with self.weight_average.in_place_of_weights() if self.weight_average is not None else contextlib.nullcontext():
            yield

    def unfreeze_when_due(self, epoch: int) -> None:
        """Unfreezes the frozen layers at the declared epoch."""
        declared = self.prepared.run.network.unfreeze
        if declared is None or self.unfrozen or epoch < declared.after_epochs or not self.prepared.frozen:
            return
        self.unfreeze()
        logging.info("%d frozen layers train from now on.", len(self.prepared.frozen))

    def unfreeze(self) -> None:
        """Unfreezes the frozen layers, and resets the optimizer."""
        declared = self.prepared.run.network.unfreeze
        assert declared is not None
        set_trainable(self.model, self.prepared.frozen, True)
        self._start_phase(declared.learning_rate)
        self.unfrozen = True

    def freeze_again(self) -> None:
        """Undoes `unfreeze`, for a checkpoint from before it."""
        set_trainable(self.model, self.prepared.frozen, False)
        self._start_phase(self.prepared.run.training.learning_rate)
        self.unfrozen = False

    def _start_phase(self, learning_rate: float) -> None:
        with self.prepared.step_setup.strategy.scope():
            optimizer = make_optimizer(self.prepared.run.training.optimizer, learning_rate * self.rate_cut)
        self.phase = make_phase(self.prepared, optimizer, learning_rate, self.weight_average, self.observers)
        self.scheduled_rate = None
        self.model.optimizer = self.phase.optimizer

    def set_learning_rate(self, step: int) -> None:
        """Sets the learning rate of the schedule for a step of the run."""
        training = self.prepared.run.training
        if not training.schedule.moves:
            return  # a user's callback may have set it
        factor = training.schedule.factor(step, self.steps_per_epoch, training.epochs, self.history)
        # A NumPy number, because TensorFlow caches a tensor for every Python number.
        self.scheduled_rate = np.float32(self.phase.learning_rate * factor * self.rate_cut)
        self.phase.optimizer.learning_rate = self.scheduled_rate

    def check_learning_rate(self) -> None:
        """Warns once if a callback sets the learning rate, which the schedule overwrites before each step."""
        learning_rate = self.phase.optimizer.learning_rate.numpy()
        if self.scheduled_rate in (None, learning_rate) or self.rate_is_logged:
            return
        logging.warning(
            "A callback set the learning rate to %g, but training.schedule, %s, overwrites it before each step. To "
            "leave the rate to callbacks, use --set training.schedule=Constant",
            learning_rate, type(self.prepared.run.training.schedule).__name__,
        )  # fmt: skip
        self.rate_is_logged = True


def make_loop(
    prepared: PreparedRun, folder: RunFolder, logs: MetricsLog, console: Console, stop: StopRequest, saver: Saver
) -> Loop:
    """Returns the loop before its first step, with optimizer, steps and callbacks."""
    training, model, strategy = prepared.run.training, prepared.step_setup.network.model, prepared.step_setup.strategy
    average = None
    if training.ema_decay is not None:
        average = _make_average(prepared.step_setup.network, training.ema_decay, strategy)
    model.stop_training = False
    steps = num_steps(len(prepared.train), training.batch_size)
    params = {"epochs": training.epochs, "steps": steps, "verbose": 0}

    def report_bad_step(step: int) -> None:
        logging.warning(
            "Step %d of epoch %d was not applied: loss, gradients or batch statistics are not finite. Its images: %s",
            step % steps + 1, step // steps + 1, prepared.names_text([step]),
        )  # fmt: skip
        folder.note_bad_steps([(step, prepared.names_in_step(step))], "not finite")

    watch = DivergenceDetector(training.divergence, report_bad_step)
    logged = named(prepared.run.observers, lambda observer, name: LoggedObserver(observer, name, logs, steps))
    observers = Observers(watch, logged)
    phase = make_phase(prepared, prepared.optimizer, training.learning_rate, average, observers)
    model.optimizer = phase.optimizer  # for Keras' callbacks
    return Loop(
        prepared=prepared,
        folder=folder,
        logs=logs,
        console=console,
        stop=stop,
        saver=saver,
        callbacks=keras.callbacks.CallbackList(prepared.callbacks, model=model, **params),
        calls_back_each_step=has_hook(prepared.callbacks, *STEP_HOOKS),
        calls_back_each_batch=has_hook(prepared.callbacks, "on_test_batch_begin", "on_test_batch_end"),
        phase=phase,
        weight_average=average,
        validation_step=make_validation_step(prepared.step_setup, gather=len(prepared.process_group) > 1),
        best=BestModels(prepared.run.task.metrics),
        watch=watch,
        observers=observers,
    )


def _make_average(network: TrainingCopy, decay: float, strategy: tf.distribute.Strategy) -> WeightAverage:
    statistics = [*network.moving_statistics.variables, *network.statistics]
    statistics_ids = {id(variable) for variable in statistics}
    # Including those of frozen layers, which may be unfrozen later.
    weights = [variable for variable in network.model.weights if id(variable) not in statistics_ids]
    floats = [variable for variable in statistics if keras.backend.is_float_dtype(variable.dtype)]
    return WeightAverage(weights, floats, decay, strategy)
