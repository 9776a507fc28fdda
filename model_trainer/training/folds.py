"""Trains one model for each fold of the data, one after the other, each as an ordinary run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.sources.folds import fold_pair
from model_trainer.sources.source import Source
from model_trainer.storage import files
from model_trainer.training.folds_folder import FoldsFolder
from model_trainer.training.train import Result, train_model

__all__ = ["check_not_doubled", "cleared_keras_state", "data_of", "run_of_fold", "train_fold_models"]


def data_of(run: Run) -> tuple[Source, str]:
    """Returns the data of a run that is divided into folds, and its name: "train_data" or "train_data + val_data"."""
    if run.val_data is None or run.val_data == run.train_data:
        return run.train_data, "train_data"
    return run.train_data + run.val_data, "train_data + val_data"


def check_not_doubled(run: Run, examples: Examples) -> None:
    """Raises DataError if all of `val_data` is in `train_data` too, for example by two spellings of one path.

    Args:
        examples: those of `data_of(run)`.
    """
    source, _ = data_of(run)
    if source is run.train_data:
        return
    ids = examples.image_numbers
    if examples.crops is not None:  # crops of one image are different examples
        ids = np.unique(np.column_stack([ids, examples.crops]), axis=0, return_inverse=True)[1].reshape(-1)
    num_train = len(run.train_data.read_shared())
    if np.isin(ids[num_train:], ids[:num_train]).all():
        raise DataError(
            f"All images of val_data are in train_data too ({examples.origin}), so the folds would contain them twice. "
            "Leave out val_data: val_data=None, or --set val_data=null."
        )


def run_of_fold(run: Run, number: int, folds: int, seed: int, output_dir: str) -> Run:
    """Returns `run` with the name, data and output folder of fold `number`, counted from 1."""
    train, val = fold_pair(data_of(run)[0], folds, number - 1, seed)
    return run.changed_all({"name": f"fold-{number}", "train_data": train, "val_data": val, "output_dir": output_dir})


def train_fold_models(folder: FoldsFolder, run: Run) -> list[Result]:
    """Trains the folds that are not finished, in order, and continues one that was interrupted.

    Returns:
        A result for each fold; fewer if a signal stopped the training, which `stopped` of the last one names.

    Raises:
        ModelTrainerError: as in `train_model`.
    """
    settings, results = folder.content["settings"], []
    for number in range(1, settings["folds"] + 1):
        fold_run = run_of_fold(run, number, settings["folds"], settings["seed"], str(folder.path))
        logging.info("Fold %d of %d", number, settings["folds"])
        try:
            folder.note_fold(number, state="training")
            with cleared_keras_state():
                result = train_model(fold_run, resume_from=folder.run_folder(number))
            state = "stopped" if result.stopped else "finished"
            folder.note_fold(number, state=state, folder=files.as_path(result.path).name)
        except BaseException as error:
            folder.note_error(error, number)
            raise
        results.append(replace(result, train_examples=None, val_examples=None))  # every fold has nearly all images
        if result.stopped:
            break
    return results


@contextlib.contextmanager
def cleared_keras_state() -> Iterator[None]:
    """Clears, at the end of the `with` block, what Keras and TensorFlow keep of the networks that were built in it.

    That is Keras' names and seeds, and the graphs of steps with a custom gradient: TensorFlow registers each such
    gradient until the process ends, and with it the whole graph, some MB for the smallest network.
    """
    registry = _gradient_registry()
    before = set(registry)
    try:
        yield
    finally:
        for name in [name for name in registry if name.startswith("CustomGradient-") and name not in before]:
            del registry[name]
        keras.backend.clear_session()  # it also runs the garbage collector, which frees the graphs


def _gradient_registry() -> dict[str, Any]:
    """TensorFlow's gradients by name; it has no public way to remove one."""
    from tensorflow.python.framework import ops

    return getattr(getattr(ops, "gradient_registry", None), "_registry", {})
