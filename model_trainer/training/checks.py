"""Checks of a run before it trains."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer.errors import ConfigError, DataError
from model_trainer.network.portable import unportable_names
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.callbacks import EarlyStopping
from model_trainer.run.network import AnyNetwork, OwnModel
from model_trainer.run.run import Run
from model_trainer.run.schedules import ReduceOnPlateau
from model_trainer.sources.examples import Examples
from model_trainer.tasks.metrics import Metric
from model_trainer.user_code import Call

__all__ = ["check_batch_size", "check_files", "check_metrics", "check_monitors", "check_portable", "check_whole_batch"]

NAMES_SHOWN = 8  # operations in a message


def check_portable(network: TwoStageNetwork, declared: AnyNetwork) -> None:
    """Warns if the network contains operations that plain Keras cannot load from an `.hdf5`.

    Raises:
        ConfigError: `declared` is a model object, not a `Call`, with operations of `keras.ops`, so that no program
            could load it.
    """
    names = unportable_names(network.model)
    if not names:
        return
    shown = ", ".join(names[:NAMES_SHOWN])
    is_live = isinstance(declared, OwnModel) and not isinstance(declared.model, Call)
    if is_live and any("keras.ops." in name for name in names):
        raise ConfigError(
            f"contains {shown}, which Keras can save in an .hdf5 but not load from it. Use a layer of "
            'keras.layers instead, or declare the model by its function: OwnModel(Call("my_code.make_model")).',
            "network.model",
        )
    logging.warning(
        "PLAIN KERAS WILL NOT LOAD THE .hdf5: the network contains %s, which is not in keras.layers. "
        "Model Trainer loads it with --trust, if your code can be imported.", shown,
    )  # fmt: skip


def check_files(run: Run, examples: Examples, *, all_may_be_missing: bool = False) -> None:
    """Checks that the files of a data set exist.

    Args:
        all_may_be_missing: whether a small data set may consist of missing images, within the limits of the run.

    Raises:
        DataError: an image is in an object store that is not supported; or more are missing than the run tolerates.
    """
    examples.check_local()
    missing = np.flatnonzero(examples.num_bytes < 0)
    limits = run.training
    is_too_many = len(missing) > max(limits.max_bad_images, limits.max_bad_fraction * len(examples))
    # In a small data set all may be within the limits.
    if is_too_many or (len(missing) == len(examples) and not all_may_be_missing):
        raise DataError(
            f"{examples.origin}: {len(missing):,} of {len(examples):,} images do not exist; the first is "
            f"{examples.name(int(missing[0]))}. Is its folder right, such as root= of a Manifest?"
        )


def check_batch_size(run: Run, train: Examples, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigError if a batch has more images than the data, or fewer than devices, or slices on all devices."""
    batch_size = run.training.batch_size
    if batch_size > len(train):
        raise ConfigError(
            f"is {batch_size}, but {train.origin} has {len(train)} images. "
            f"Lower it: --set training.batch_size={len(train)}",
            "training.batch_size",
        )
    if batch_size < strategy.num_replicas_in_sync:
        raise ConfigError(
            f"is {batch_size}, fewer than the {strategy.num_replicas_in_sync} devices that share it. "
            f"Raise it, or use fewer devices: --set hardware.devices={batch_size}",
            "training.batch_size",
        )
    num_slices = run.training.accumulation_steps * strategy.num_replicas_in_sync
    if batch_size < num_slices:
        raise ConfigError(
            f"is {run.training.accumulation_steps}, which divides a batch of {batch_size} into {num_slices} slices on "
            f"{strategy.num_replicas_in_sync} devices. Lower it, or raise training.batch_size.",
            "training.accumulation_steps",
        )


def check_whole_batch(run: Run, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigError if the loss needs the whole batch, and the batch would be split."""
    if not run.task.needs_whole_batch:
        return
    compares = f"{type(run.task).__name__} compares the examples of a batch with each other, so"
    if run.training.accumulation_steps > 1:
        raise ConfigError(
            f"is {run.training.accumulation_steps}, but {compares} a batch cannot be split. "
            "Add --set training.accumulation_steps=1.",
            "training.accumulation_steps",
        )
    if strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            f"is {strategy.num_replicas_in_sync} here, but {compares} it trains on one device of one machine. "
            "Add --set hardware.devices=1.",
            "hardware.devices",
        )


def check_metrics(run: Run) -> None:
    """Raises ConfigError if a metric does not fit the labels of the task."""
    kind = run.task.label_kind
    for index, metric in enumerate(run.task.metrics):
        if metric.label_kind != kind:
            purpose = (
                "tags, for MultiLabel"
                if metric.label_kind == "tags"
                else "one class for each image, for Classification"
            )
            suitable = sorted(name for name, cls in Metric.kinds().items() if getattr(cls, "label_kind", "") == kind)
            raise ConfigError(
                f"is {type(metric).__name__}, a metric of {purpose}. Use one of {', '.join(suitable)}.",
                f"task.metrics.{index}",
            )


def check_monitors(run: Run, has_val: bool) -> None:
    """Raises ConfigError if a schedule or callback monitors a metric that the run does not have."""
    names = ["loss", *(metric.name for metric in run.task.additive_metrics)]
    names += ["val_loss", *(f"val_{metric.name}" for metric in run.task.metrics)] if has_val else []
    values: list[tuple[str, object]] = [("training.schedule", run.training.schedule)]
    values += [(f"callbacks.{index}", callback) for index, callback in enumerate(run.callbacks)]
    for field, value in values:
        if isinstance(value, (ReduceOnPlateau, EarlyStopping)) and value.monitor not in names:
            raise ConfigError(f"is {value.monitor!r}, but this run has only {', '.join(names)}.", f"{field}.monitor")
