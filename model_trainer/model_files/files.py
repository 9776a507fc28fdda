"""Saves models as `.hdf5` files that plain Keras can load, with the content of `model_spec.json` inside."""

from __future__ import annotations

import json
from typing import Any

import h5py
import keras
from absl import logging

from model_trainer.model_files.container import ModelFile
from model_trainer.model_files.description import parse_description
from model_trainer.storage import files

__all__ = ["ATTRIBUTE", "read_description", "save_model"]

ATTRIBUTE = "model_spec"  # HDF5 attribute at the root of the file, JSON


def save_model(model: keras.Model, path: files.StrPath, description: dict[str, Any]) -> None:
    """Saves `model` to `path` atomically.

    Args:
        model: a plain functional model, in float32.
        path: the file; it ends in `.hdf5`.
        description: the content of `model_spec.json`.

    Raises:
        StorageError: the file cannot be written.
    """
    with files.atomic_write(path) as partial:
        # On every save Keras recommends its own format, but .hdf5 is what our users' services load.
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)
        try:
            model.save(partial, include_optimizer=False)
        finally:
            logging.set_verbosity(verbosity)
        with h5py.File(partial, "r+") as file:
            file.attrs[ATTRIBUTE] = json.dumps(description)


def read_description(file: ModelFile) -> dict[str, Any] | None:
    """Reads the content of `model_spec.json` that our `.hdf5` files contain; None for a file of another origin.

    Raises:
        ModelFileError: it is not a valid description.
    """
    text = file.text(ATTRIBUTE)
    return None if text is None else parse_description(text, f"{file.path}: its {ATTRIBUTE}")
