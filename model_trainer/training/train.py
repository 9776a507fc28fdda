"""`train_model`: a run in, a folder with trained models out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.errors import DeviceError
from model_trainer.models.training_copy import copy_weights
from model_trainer.training.history import Row
from model_trainer.training.log import LogFile, plain_messages
from model_trainer.training.loop import train_epochs
from model_trainer.training.prepare import Prepared, prepare
from model_trainer.training.run import Run
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import stop_on_signals

__all__ = ["Result", "train_model"]


@dataclass(frozen=True)
class Result:
    """What a training left.

    Attributes:
        path: the run's folder.
        history: one row of figures for each epoch.
        bad_images: why images could not be read, by path.
        stopped: the signal that ended it early, or the empty string.
    """

    path: Path
    history: list[Row]
    bad_images: dict[str, str]
    stopped: str = ""


def train_model(run: Run) -> Result:
    """Trains `run` and writes its output folder.

    Raises:
        ModelTrainerError: the run, its data or its devices are wrong, or training diverged; says why, and the cure.
    """
    console = Console(stderr=True)
    with plain_messages(), LogFile() as log_file:
        prepared = prepare(run)
        folder = RunFolder.make(run, prepared.description)
        log_file.write_to(folder.path / "logs" / "train.log")
        prepared.bad_images.write_to(folder.path / "bad_images.csv")
        folder.write_options(run, prepared.found)
        logging.info("Output: %s", folder.path)
        with folder.logs() as logs, stop_on_signals() as stop:
            try:
                loop = train_epochs(prepared, folder, logs, console, stop)
            except tf.errors.ResourceExhaustedError as error:
                raise DeviceError(_out_of_memory(run)) from error
        copy_weights(prepared.parts.network.model, prepared.started.built.model)
        folder.save_model(prepared.started.built.model, "final_model", loop.thresholds)
        _tell_bad_images(prepared)
        return Result(folder.path, loop.history, prepared.bad_images.reasons, stop.reason)


def _tell_bad_images(prepared: Prepared) -> None:
    count = len(prepared.bad_images)
    if count:
        logging.warning("%d images could not be read and were left out; bad_images.csv names them.", count)


def _out_of_memory(run: Run) -> str:
    batch_size = run.training.batch_size
    height, width, _ = run.spec.target_size
    return (
        f"Out of memory with {batch_size} images of {height} x {width} in a step. "
        f"Lower the batch: --set training.batch_size={max(1, batch_size // 2)}; or the size: "
        f"--set spec.target_size=[{height // 2},{width // 2},{run.spec.target_size[2]}]; "
        "or the precision: --set training.precision=mixed_bfloat16"
    )
