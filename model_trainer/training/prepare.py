"""From a declared run to all that the loop needs; what is wrong with a run shows here, before a file is written."""

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

__all__ = ["Prepared", "join_hosts", "prepare"]

NAMES_SHOWN = 8  # of images, in a message


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train.

    Attributes:
        run: as declared.
        train, val: the examples.
        train_pipeline, val_pipeline: the same as batches.
        plain: the network that is saved, and where its weights came from.
        parts: the network that trains, and what its step is made of.
        frozen: names of the layers that do not train yet, or ever.
        precision: in which it computes.
        bad_images: told of by the pipelines.
        optimizer: not built yet.
        callbacks: of the user, as Keras ones.
        process_group: all processes that train the run.
    """

    run: Run
    train: Examples
    val: Examples | None
    train_pipeline: Pipeline
    val_pipeline: Pipeline | None
    plain: InitializedNetwork
    parts: StepSetup
    frozen: list[str]
    precision: str
    bad_images: BadImages
    optimizer: keras.optimizers.Optimizer
    callbacks: list[keras.callbacks.Callback]
    process_group: ProcessGroup

    def divided(self, dataset: tf.data.Dataset) -> Iterable[Any]:
        """The batches of a pipeline, each already on the devices of this process that share it."""
        return feed(dataset, self.train_pipeline.share, self.parts.strategy)

    def names_in_step(self, step: int) -> list[str]:
        """Which images a step of the run shows, by name."""
        return [self.train.name(int(index)) for index in self.train_pipeline.in_step(step, self.run.training.epochs)]

    def names_text(self, steps: list[int]) -> str:
        """The images of steps for a message: the first ones, and where all stand."""
        names = [name for step in steps for name in self.names_in_step(step)]
        more = f" and {len(names) - NAMES_SHOWN} more, see bad_steps.csv" if len(names) > NAMES_SHOWN else ""
        return ", ".join(names[:NAMES_SHOWN]) + more

    def check_bad_images(self) -> None:
        """Stops the run when too many images could not be read; tells the first process of what the others found.

        Raises:
            DataError: there are too many, in all processes together.
        """
        if len(self.process_group) > 1:
            for reasons in self.process_group.all_gather(self.bad_images.reasons):
                self.bad_images.take_over(reasons)
        self.bad_images.check()

    @property
    def description(self) -> dict[str, Any]:
        """What model_spec.json says: all that rebuilds the network and reads its answers."""
        run = self.run
        rest = {"task": run.task.to_dict(), "network": run.network.to_dict(), "classes": list(self.train.classes)}
        return {"format": 1, **run.spec.to_dict(), **rest, "thresholds": None, "variant": self.plain.network.variant}

    @property
    def found(self) -> dict[str, Any]:
        """What training_options.json says besides the run."""
        fingerprints = {"train": self.train.fingerprint, "val": self.val.fingerprint if self.val else None}
        return {
            "seed": self.run.training.seed,
            "weights_used": self.plain.weights,
            "precision_used": self.precision,
            "devices_used": describe_devices(self.parts.strategy),
            "data_fingerprint": fingerprints,
            "num_train_images": len(self.train),
            "num_val_images": len(self.val) if self.val else 0,
        }


def join_hosts(run: Run, hosts: Hosts) -> ProcessGroup:
    """Joins the other processes that train the run; first of all, as TensorFlow has to do it before anything else.

    Raises:
        HostError, ConfigError, DeviceError: the others did not come, or the devices cannot be used.
    """
    _check_backend()
    return ProcessGroup(hosts, make_strategy(run.hardware, hosts))


def prepare(run: Run, process_group: ProcessGroup | None = None, origin: Origin | None = None) -> Prepared:
    """Reads the data, finds the devices and builds the network.

    Args:
        process_group: all processes that train the run; None for one.
        origin: of the network of a run that continues from a checkpoint, which has the weights.

    Raises:
        ConfigError, DataError, ModelFileError, DeviceError: the run cannot be trained; says why, and the cure.
    """
    _check_backend()
    logging.info("Reading the data ...")
    with each_read_once():
        train, val = _read_data(run)
    images = f"{len(train):,} images of {len(train.classes)} classes"
    logging.info("Data: %s to train%s.", images, f", {len(val):,} to validate" if val is not None else "")
    if origin is None:  # older versions took any metric
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
    noted = origin.precision if origin is not None else None  # a run goes on as it began, on other devices too
    # The CPUs of several hosts may differ; all compute as the first one.
    precision = noted or process_group.broadcast_from_chief(
        lambda: choose_precision(run.training.precision, run.spec, run.network)
    )
    logging.info("Building the network ...")
    # The plain network stays on the host: it only receives weights and is saved.
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
    parts = StepSetup(
        strategy=strategy,
        network=copy,
        spec=run.spec,
        task=run.task,
        factors=run.task.factors(train),
        batch_size=run.training.batch_size,
        accumulation_steps=accumulation_steps,
        loss_mean=run.training.loss_mean,
    )
    own = strategy.num_replicas_in_sync // len(process_group)
    share = BatchShard(strategy.num_replicas_in_sync, process_group.index * own, own, least=accumulation_steps)
    bad_images = BadImages(
        run.training.max_bad_images, run.training.max_bad_share, len(train) + (len(val) if val else 0)
    )

    def pipeline(examples: Examples) -> Pipeline:
        return Pipeline(
            examples=examples,
            spec=run.spec,
            batch_size=run.training.batch_size,
            bad_images=bad_images,
            share=share,
            augment=run.augment,
            sampling=run.training.sampling,
            seed=run.training.seed,
        )

    check_portable(plain.network, run.network)
    _tell(run, copy.model, strategy, precision, plain.weights)
    return Prepared(
        run=run,
        train=train,
        val=val,
        train_pipeline=pipeline(train),
        val_pipeline=pipeline(val) if val is not None else None,
        plain=plain,
        parts=parts,
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
            f"Training runs on Keras' TensorFlow backend, but Keras uses {keras.backend.backend()!r}. "
            "Set the environment variable KERAS_BACKEND=tensorflow."
        )
    keras.config.set_image_data_format("channels_last")  # a user's keras.json may say otherwise


def _read_data(run: Run) -> tuple[Examples, Examples | None]:
    train = run.train_data.read_shared()
    run.task.check(train)
    check_files(run, train)
    if run.val_data is None:
        return train, None
    val = run.val_data.read_shared()
    val = val.without_unknown_classes(train.classes).with_classes(train.classes)
    run.task.check(val)
    check_files(run, val)
    for name, count in zip(val.classes, val.counts(), strict=True):
        if not count:
            logging.warning("%s has no image of the class %r; it is not validated.", val.origin, name)
            break
    return train, val


def _tell(run: Run, model: keras.Model, strategy: tf.distribute.Strategy, precision: str, weights: str) -> None:
    count = int(sum(np.prod(variable.shape) for variable in model.trainable_variables))
    height, width, channels = run.spec.target_size
    logging.info(
        "Network: %s, %d x %d x %d, %s weights, %s parameters to train.",
        model.name, height, width, channels, weights, f"{count:,}",
    )  # fmt: skip
    logging.info("Training on %s in %s.", describe_devices(strategy), precision)
