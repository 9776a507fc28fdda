"""What would go wrong with a run, found before it trains."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer.config import Call
from model_trainer.errors import ConfigError, DataError
from model_trainer.network.portable import unportable_names
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.callbacks import EarlyStopping
from model_trainer.run.network import AnyNetwork, OwnModel
from model_trainer.run.run import Run
from model_trainer.run.schedules import ReduceOnPlateau
from model_trainer.sources.examples import Examples
from model_trainer.tasks.metrics import Metric

__all__ = ["check_batch_size", "check_files", "check_metrics", "check_monitors", "check_portable", "check_whole_batch"]

NAMES_SHOWN = 8  # of operations, in a message


def check_portable(network: TwoStageNetwork, declared: AnyNetwork) -> None:
    """Tells before training, and not after it, what of the network the `.hdf5` cannot carry."""
    names = unportable_names(network.model)
    if not names:
        return
    shown = ", ".join(names[:NAMES_SHOWN])
    is_live = isinstance(declared, OwnModel) and not isinstance(declared.model, Call)
    if is_live and any("keras.ops." in name for name in names):
        raise ConfigError(
            f"contains {shown}, which a .hdf5 cannot carry, so that nothing could load it. Take a layer of "
            'keras.layers in its place, or declare the model by its function: OwnModel(Call("my_code.make_model")).',
            "network.model",
        )
    logging.warning(
        "PLAIN KERAS WILL NOT LOAD THE .hdf5: the network contains %s, which is no layer of keras.layers. "
        "Model Trainer loads it with --trust, where your code can be imported.", shown,
    )  # fmt: skip


def check_files(run: Run, examples: Examples) -> None:
    """Stops before a GPU-hour is spent where images lie in an object store, or more are missing than a run bears."""
    examples.check_local()
    missing = np.flatnonzero(examples.num_bytes < 0)
    limits = run.training
    if len(missing) > max(limits.max_bad_images, limits.max_bad_share * len(examples)):
        raise DataError(
            f"{examples.origin}: {len(missing):,} of {len(examples):,} images are not there, the first is "
            f"{examples.name(int(missing[0]))}. Is the path before it right, such as root= of a Manifest?"
        )


def check_batch_size(run: Run, train: Examples, strategy: tf.distribute.Strategy) -> None:
    """Stops where a batch has more images than there are, or fewer than devices and accumulation steps divide it."""
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
            f"Raise it, or take fewer: --set hardware.devices={batch_size}",
            "training.batch_size",
        )
    parts = run.training.accumulation_steps * strategy.num_replicas_in_sync
    if batch_size < parts:
        raise ConfigError(
            f"is {run.training.accumulation_steps}, which makes {parts} parts on {strategy.num_replicas_in_sync} "
            f"devices of a batch of {batch_size}. Lower it, or raise training.batch_size.",
            "training.accumulation_steps",
        )


def check_whole_batch(run: Run, strategy: tf.distribute.Strategy) -> None:
    """Stops where a loss that compares the examples of a batch with each other would see parts of it."""
    if not run.task.needs_whole_batch:
        return
    compares = f"{type(run.task).__name__} compares the examples of a batch with each other, so"
    if run.training.accumulation_steps > 1:
        raise ConfigError(
            f"is {run.training.accumulation_steps}, but {compares} it cannot be computed in parts. "
            "Add --set training.accumulation_steps=1.",
            "training.accumulation_steps",
        )
    if strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            f"is {strategy.num_replicas_in_sync} here, but {compares} it trains on one, of one machine. "
            "Add --set hardware.devices=1.",
            "hardware.devices",
        )


def check_metrics(run: Run) -> None:
    """Stops where a metric is none of the task's."""
    kind = run.task.label_kind
    for number, metric in enumerate(run.task.metrics):
        if metric.label_kind != kind:
            what = (
                "tags, for MultiLabel"
                if metric.label_kind == "tags"
                else "one class for each image, for Classification"
            )
            known = sorted(name for name, each in Metric.kinds().items() if getattr(each, "label_kind", "") == kind)
            raise ConfigError(
                f"is {type(metric).__name__}, a metric of {what}. Take one of {', '.join(known)}.",
                f"task.metrics.{number}",
            )


def check_monitors(run: Run, has_val: bool) -> None:
    """Stops where a schedule or callback follows a metric that the run does not have."""
    names = ["loss", *(metric.name for metric in run.task.additive_metrics)]
    names += ["val_loss", *(f"val_{metric.name}" for metric in run.task.metrics)] if has_val else []
    watching: list[tuple[str, object]] = [("training.schedule", run.training.schedule)]
    watching += [(f"callbacks.{number}", callback) for number, callback in enumerate(run.callbacks)]
    for field, value in watching:
        if isinstance(value, (ReduceOnPlateau, EarlyStopping)) and value.monitor not in names:
            raise ConfigError(f"is {value.monitor!r}, but this run has only {', '.join(names)}.", f"{field}.monitor")
