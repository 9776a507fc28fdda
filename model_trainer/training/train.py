"""`train_model`: a run in, a folder with trained models out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.errors import DeviceError
from model_trainer.models.training_copy import copy_weights
from model_trainer.training.checkpoints.store import Checkpoint, read_newest
from model_trainer.training.history import Row
from model_trainer.training.log import LogFile, plain_messages
from model_trainer.training.loop import train_epochs
from model_trainer.training.prepare import Prepared, prepare
from model_trainer.training.resume import (
    check_changes,
    check_data,
    find_folder,
    for_batch_size,
    is_finished,
    steps_done,
)
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
        was_finished: whether there was nothing left to do.
    """

    path: Path
    history: list[Row]
    bad_images: dict[str, str]
    stopped: str = ""
    was_finished: bool = False


def train_model(run: Run, resume: bool = False, resume_from: str | Path | None = None) -> Result:
    """Trains `run` and writes its output folder.

    Args:
        resume: go on in the newest folder of the run's name, from its last checkpoint, or its beginning where it has
            none; without such a folder a new run begins.
        resume_from: go on in this folder.

    Raises:
        ModelTrainerError: the run, its data or its devices are wrong, or training diverged; says why, and the cure.
    """
    console = Console(stderr=True)
    with plain_messages(), LogFile() as log_file:
        path = find_folder(run, resume_from) if resume or resume_from is not None else None
        checkpoint = None
        if path is not None:
            check_changes(run, path)
            checkpoint = read_newest(path / "checkpoints")
            if checkpoint is not None and is_finished(checkpoint, run):
                logging.info("%s is finished; there is nothing left to do.", path)
                return _finished(path, checkpoint)
        prepared = prepare(run)
        if path is not None:
            check_data(prepared.found, path)
            folder = RunFolder.reopen(path, prepared.description)
        else:
            folder = RunFolder.make(run, prepared.description)
        log_file.write_to(folder.path / "logs" / "train.log")
        prepared.bad_images.write_to(folder.path / "bad_images.csv")
        folder.write_options(run, prepared.found)
        folder.forget_figures_after(*((steps_done(checkpoint), checkpoint.epoch) if checkpoint else (0, 0)))
        logging.info("Output: %s", folder.path)
        if checkpoint is not None:
            checkpoint = for_batch_size(checkpoint, run, len(prepared.train))
        with folder.logs() as logs, stop_on_signals() as stop:
            try:
                loop = train_epochs(prepared, folder, logs, console, stop, checkpoint)
            except tf.errors.ResourceExhaustedError as error:
                raise DeviceError(_out_of_memory(run)) from error
        copy_weights(prepared.parts.network.model, prepared.started.built.model)
        folder.save_model(prepared.started.built.model, "final_model", loop.thresholds)
        _tell_bad_images(prepared)
        return Result(folder.path, loop.history, prepared.bad_images.reasons, stop.reason)


def _finished(path: Path, checkpoint: Checkpoint) -> Result:
    history = [dict(row) for row in checkpoint.state["history"]]
    return Result(path, history, dict(checkpoint.state["bad_images"]), was_finished=True)


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
