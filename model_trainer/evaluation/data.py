"""Which images a model is evaluated on: those of its run, or others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.record import DataSource
from model_trainer.model_files.load import load_model
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.run.run import load_data
from model_trainer.sources.from_path import source_of_path
from model_trainer.sources.image_folder import ImageFolder
from model_trainer.sources.source import Source
from model_trainer.specs import ModelSpec
from model_trainer.storage import files

__all__ = ["Model", "data_of_run", "load_models", "source_of"]

Model = str | os.PathLike[str] | TrainedModel


def data_of_run(model_file: Path, trust: bool) -> tuple[Source, DataSource]:
    """Returns the validation data of the run that trained a model, or its training data if it has none.

    Raises:
        DataError: the model file is not in the output folder of a run.
        ConfigError: the options of the run define the data by code, which needs `trust`.
    """
    options = model_file.with_name("training_options.json")
    if not files.is_file(options):
        raise DataError(f"There is no training_options.json next to {model_file}; choose the data with --data PATH.")
    train_data, val_data = load_data(options, trust)
    source = val_data or train_data
    return source, DataSource(source.read_shared().origin, "training" if val_data is None else "validation")


def load_models(
    models: Sequence[Model], trust: bool, spec: ModelSpec | str | None, classes: Sequence[str] | None
) -> list[TrainedModel]:
    """Loads the models to evaluate, see `load_model`.

    Args:
        classes: ignored without `spec`, where they name the classes of the data instead.

    Raises:
        ConfigError: `models` is empty.
        ModelFileError: a model cannot be read.
    """
    if not models:
        raise ConfigError("should be a model or a list of models, got an empty list.", "model")
    loaded = [
        each
        if isinstance(each, TrainedModel)
        else load_model(each, trust, spec=spec, classes=None if spec is None else classes)
        for each in models
    ]
    for each in loaded:
        logging.info("Model: %s", each.path)  # in an output folder, the file that was chosen
    return loaded


def source_of(
    data: Source | str | os.PathLike[str] | None, root: str | None, classes: Sequence[str] | None, *, is_external: bool
) -> Source | None:
    """Returns the source of the images to evaluate; None if they are those of the run.

    Args:
        data: a source, or a path.
        root: base folder of the paths in a manifest.
        classes: names of the classes of `data`; with `is_external`, of the model's outputs.
        is_external: whether the model file was not written by Model Trainer.

    Raises:
        ConfigError: `root` or `classes` describe data that is not a path.
        DataError: there is no data set at the path.
    """
    if not isinstance(data, (str, os.PathLike)):
        if root is not None or (classes is not None and not is_external):
            raise ConfigError("needs `data` to be a path (--data PATH).", "classes" if root is None else "root")
        return data
    path = os.fspath(data)
    if not is_external or classes is None:
        return source_of_path(path, root=root, classes=classes)
    source = source_of_path(path, root=root)
    # `classes` is in the order of the model's outputs, so it must not rename the classes of data that has names.
    names = () if isinstance(source, ImageFolder) else source.read_shared().classes
    are_numbers = names and names == tuple(map(str, range(len(names))))
    return source_of_path(path, root=root, classes=classes) if are_numbers else source
