"""Prepares a declared run for training; errors in a run are raised here, before a file is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.process_group import ProcessGroup
from model_trainer.errors import ConfigError
from model_trainer.model_files.weights import InitializedNetwork, Origin, initialize_network
from model_trainer.network.batch_norm import auto_momentum
from model_trainer.network.layers import add_regularizers, freeze
from model_trainer.network.training_copy import make_training_copy
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline, num_steps
from model_trainer.pipeline.shard import BatchShard
from model_trainer.run.callbacks import make_callbacks
from model_trainer.run.optimizers import make_optimizer
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.sources.folds import Fold
from model_trainer.sources.source import each_read_once
from model_trainer.training.checks import (
    check_batch_size,
    check_files,
    check_metrics,
    check_monitors,
    check_portable,
    check_whole_batch,
)
from model_trainer.training.devices import describe_devices, make_strategy
from model_trainer.training.feed import feed
from model_trainer.training.keras_callbacks import check_callbacks, decide_directions
from model_trainer.training.precision import choose_precision
from model_trainer.training.step_types import StepSetup

__all__ = ["PreparedRun", "join_hosts", "prepare"]

NAMES_SHOWN = 8  # image names in a message


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to train.

    Attributes:
        run: as declared.
        train, val: the training and validation examples.
        train_pipeline, val_pipeline: the pipelines of their batches.
        plain: the network that is saved, and the origin of its weights.
        step_setup: the setup of the training step, with the training copy of the network.
        frozen: names of the frozen layers.
        precision: the dtype policy.
        bad_images: collects the images that the pipelines cannot read.
        optimizer: not built yet.
        callbacks: the user's callbacks, as Keras callbacks.
        process_group: all processes that train the run.
    """

    run: Run
    train: Examples
    val: Examples | None
    train_pipeline: Pipeline
    val_pipeline: Pipeline | None
    plain: InitializedNetwork
    step_setup: StepSetup
    frozen: list[str]
    precision: str
    bad_images: BadImages
    optimizer: keras.optimizers.Optimizer
    callbacks: list[keras.callbacks.Callback]
    process_group: ProcessGroup

    def distributed(self, dataset: tf.data.Dataset) -> Iterable[Any]:
        """Returns the batches of a pipeline, distributed over the devices of this process; see `BadImages.checked`."""
        return self.bad_images.checked(feed(dataset, self.train_pipeline.shard, self.step_setup.strategy))

    def names_in_step(self, step: int) -> list[str]:
        """Returns the names of the images in a step of the run."""
        return [self.train.name(int(index)) for index in self.train_pipeline.in_step(step, self.run.training.epochs)]

    def names_text(self, steps: list[int]) -> str:
        """Returns the first images of steps, for a message, and where all of them are listed."""
        names = [name for step in steps for name in self.names_in_step(step)]
        more = f" and {len(names) - NAMES_SHOWN} more, see bad_steps.csv" if len(names) > NAMES_SHOWN else ""
        return ", ".join(names[:NAMES_SHOWN]) + more

    def check_bad_images(self) -> None:
        """Exchanges the names of unreadable images between all processes, and checks their number.

        Raises:
            DataError: there are too many, over all processes.
        """
        if len(self.process_group) > 1:
            for reasons in self.process_group.all_gather(self.bad_images.reasons):
                self.bad_images.take_over(reasons)
        self.bad_images.check()

    @property
    def description(self) -> dict[str, Any]:
        """The content of model_spec.json: everything needed to rebuild the network and decode its predictions."""
        run = self.run
        values = {"task": run.task.to_dict(), "network": run.network.to_dict(), "classes": list(self.train.classes)}
        return {"format": 1, **run.spec.to_dict(), **values, "thresholds": None, "variant": self.plain.network.variant}

    @property
    def resolved_settings(self) -> dict[str, Any]:
        """The content of training_options.json besides the declared run."""
        fingerprints = {"train": self.train.fingerprint, "val": self.val.fingerprint if self.val else None}
        return {
            "seed": self.run.training.seed,
            "weights_used": self.plain.weights,
            "precision_used": self.precision,
            "devices_used": describe_devices(self.step_setup.strategy),
            "data_fingerprint": fingerprints,
            "num_train_images": len(self.train),
            "num_val_images": len(self.val) if self.val else 0,
        }


def join_hosts(run: Run, hosts: Hosts) -> ProcessGroup:
    """Joins the other processes that train the run; TensorFlow must do this before anything else.

    Raises:
        HostError, ConfigError, DeviceError: the other processes did not join, or the devices cannot be used.
    """
    _check_backend()
    return ProcessGroup(hosts, make_strategy(run.hardware, hosts))


def prepare(run: Run, process_group: ProcessGroup | None = None, origin: Origin | None = None) -> PreparedRun:
    """Reads the data, finds the devices and builds the network.

    Args:
        process_group: all processes that train the run; None for a single process.
        origin: where the network came from, if the run continues from a checkpoint, which has the weights.

    Raises:
        ConfigError, DataError, ModelFileError, DeviceError: the run cannot be trained; the message has the cure.
    """
    _check_backend()
    logging.info("Reading the data ...")
    with each_read_once():
        train, val = _read_data(run)
    images = f"{len(train):,} images of {len(train.classes)} classes"
    logging.info("Data: %s to train%s.", images, f", {len(val):,} to validate" if val is not None else "")
    if origin is None:  # older versions accepted any metric
        check_metrics(run)
    check_monitors(run, has_val=val is not None)
    process_group = process_group or ProcessGroup(None, make_strategy(run.hardware))
    strategy = process_group.strategy
    check_batch_size(run, train, strategy)
    check_whole_batch(run, strategy)
    if run.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(run.training.seed)
    callbacks = make_callbacks(run.callbacks)
    original = origin.precision if origin is not None else None  # a resumed run keeps it, also on other devices
    # The CPUs of several hosts may differ; all use the precision of the chief.
    precision = original or process_group.broadcast_from_chief(
        lambda: choose_precision(run.training.precision, run.spec, run.network)
    )
    logging.info("Building the network ...")
    # The plain network stays on the host, where it only receives weights and is saved.
    with tf.device("CPU:0"):
        plain = initialize_network(run.spec, run.network, run.task, len(train.classes), run.weights, origin)
    with strategy.scope():
        copy = make_training_copy(
            plain.network,
            precision,
            run.training.seed,
            run.training.synchronized_batch_norm,
            _batch_norm_momentum(run, len(train)),
        )
        frozen = freeze(copy.model, plain.network, run.network)
        add_regularizers(copy.model, plain.network, run.network)
        optimizer = make_optimizer(run.training.optimizer, run.training.learning_rate)
    check_callbacks(callbacks, run, optimizer, is_resumed=origin is not None)
    decide_directions(callbacks)
    accumulation_steps = run.training.accumulation_steps
    step_setup = StepSetup(
        strategy=strategy,
        network=copy,
        spec=run.spec,
        task=run.task,
        factors=run.task.factors(train),
        batch_size=run.training.batch_size,
        accumulation_steps=accumulation_steps,
        loss_mean=run.training.loss_mean,
    )
    num_own = strategy.num_replicas_in_sync // len(process_group)
    shard = BatchShard(strategy.num_replicas_in_sync, process_group.index * num_own, num_own, least=accumulation_steps)
    bad_images = BadImages(
        run.training.max_bad_images, run.training.max_bad_fraction, len(train) + (len(val) if val else 0)
    )

    def pipeline(examples: Examples) -> Pipeline:
        return Pipeline(
            examples=examples,
            spec=run.spec,
            batch_size=run.training.batch_size,
            bad_images=bad_images,
            shard=shard,
            augment=run.augment,
            sampling=run.training.sampling,
            seed=run.training.seed,
        )

    check_portable(plain.network, run.network)
    _log_network(run, copy.model, strategy, precision, plain.weights)
    return PreparedRun(
        run=run,
        train=train,
        val=val,
        train_pipeline=pipeline(train),
        val_pipeline=pipeline(val) if val is not None else None,
        plain=plain,
        step_setup=step_setup,
        frozen=frozen,
        precision=precision,
        bad_images=bad_images,
        optimizer=optimizer,
        callbacks=callbacks,
        process_group=process_group,
    )


def _batch_norm_momentum(run: Run, num_images: int) -> float | None:
    declared = run.network.batch_norm_momentum
    if declared == "keras":
        return None
    batch_size = run.training.batch_size
    return auto_momentum(batch_size, num_steps(num_images, batch_size)) if declared == "auto" else declared


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"Training needs Keras' TensorFlow backend, but Keras uses {keras.backend.backend()!r}. "
            "Set the environment variable KERAS_BACKEND=tensorflow."
        )
    keras.config.set_image_data_format("channels_last")  # a user's keras.json may have another default


def _read_data(run: Run) -> tuple[Examples, Examples | None]:
    train = run.train_data.read_shared()
    run.task.check(train)
    check_files(run, train)
    if run.val_data is None:
        return train, None
    val = run.val_data.read_shared()
    val = val.without_unknown_classes(train.classes).with_classes(train.classes)
    run.task.check(val)
    check_files(run, val, all_may_be_missing=isinstance(run.val_data, Fold))  # a fold may consist of bad images
    for name, count in zip(val.classes, val.counts(), strict=True):
        if not count:
            logging.warning("%s has no images of class %r, which is not validated.", val.origin, name)
            break
    return train, val


def _log_network(run: Run, model: keras.Model, strategy: tf.distribute.Strategy, precision: str, weights: str) -> None:
    count = int(sum(np.prod(variable.shape) for variable in model.trainable_variables))
    height, width, channels = run.spec.target_size
    logging.info(
        "Network: %s, %d x %d x %d, %s weights, %s parameters to train.",
        model.name, height, width, channels, weights, f"{count:,}",
    )  # fmt: skip
    logging.info("Training on %s in %s.", describe_devices(strategy), precision)
