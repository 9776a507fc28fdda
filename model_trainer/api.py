"""The verbs: train, evaluate, predict, preview. Each is a plain function over the layers below."""

from __future__ import annotations

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip  # before anything else imports TensorFlow

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging
from rich.console import Console

from model_trainer.cluster.launchers import find_hosts
from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.evaluate import evaluate_model
from model_trainer.model_files.load import TrainedModel, load_model
from model_trainer.report.preview import draw_preview
from model_trainer.run.run import Run, load_validation_data
from model_trainer.serving.predictor import Predictions, find_images, predict_images
from model_trainer.sources.from_path import source_of_path
from model_trainer.sources.image_folder import ImageFolder
from model_trainer.sources.source import Source, each_read_once
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.training.log import plain_messages
from model_trainer.training.summary import print_summary
from model_trainer.training.train import Result, train_model

__all__ = ["evaluate", "load_model", "predict", "preview", "train"]


def train(
    run: Run,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
    *,
    hosts: str | None = None,
    host_index: int | None = None,
) -> Result:
    """Trains `run`, prints a table of its epochs, and says where its files lie.

    On several machines each calls this alike. They find each other by `hosts`, or by what Slurm, Open MPI, torchrun,
    Kubernetes, SageMaker or `TF_CONFIG` say; see docs/machines.md.

    Args:
        resume: go on where the newest run of this name stopped.
        resume_from: go on in this output folder.
        hosts: addresses of all machines, such as "gpu01:2222,gpu02:2222".
        host_index: which of them this one is, from 0.

    Raises:
        ModelTrainerError: the run, its data or its devices are wrong, or training diverged; says why, and the cure.
    """
    with plain_messages():
        found = find_hosts(hosts, host_index, os.environ)  # may wait for the others
    result = train_model(run, resume, None if resume_from is None else os.fspath(resume_from), found)
    if found is None or found.is_chief:
        print_summary(result, Console(force_jupyter=False))  # in a notebook as plain text too
    return result


def evaluate(
    model: str | os.PathLike[str] | TrainedModel,
    data: Source | str | os.PathLike[str] | None = None,
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
    root: str | None = None,
) -> Evaluation:
    """Figures of a trained model on labelled images.

    Args:
        model: an output folder, an `.hdf5` of one, or a loaded model.
        data: a source, or a path: a folder with one folder for each class, a manifest, a `.rec`, TFRecord files; None
            takes the validation data of the run, otherwise its training data.
        trust: whether code that the files name may be run.
        spec: of a model file that Model Trainer did not write; see `load_model`.
        classes: with `spec` the names of the model's outputs, otherwise those of the classes of `data`, where it is a
            path; in either case what class numbers without names mean.
        root: the folder below which the paths of a manifest are, where `data` is one.

    Raises:
        ModelFileError, DataError, ConfigError: the model or the data cannot be read.
    """
    data = os.fspath(data) if isinstance(data, os.PathLike) else data
    if not isinstance(data, str) and (root is not None or (classes is not None and spec is None)):
        raise ConfigError("needs `data` that are given as a path (--data PATH).", "classes" if root is None else "root")
    trained = _loaded(model, trust, spec, None if spec is None else classes)
    with plain_messages():
        logging.info("Model: %s", trained.path)  # of the three in an output folder
    with each_read_once():
        if isinstance(data, str):
            data = _source_of(data, root, classes, is_foreign=spec is not None)
        if data is None:
            data = _data_of_run(trained.path, trust)
        examples = data.read_shared()
    return evaluate_model(trained, examples)


def predict(
    model: str | os.PathLike[str] | TrainedModel,
    images: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    top: int | None = None,
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """What a trained model sees in images.

    Args:
        model: an output folder, an `.hdf5` of one, or a loaded model.
        images: files, and folders that are searched all the way down.
        top: how many of the most probable labels are named; None: 5, or of tags those from their thresholds on.
        trust: whether code that the file names may be run.
        spec, classes: of a model file that Model Trainer did not write; see `load_model`.

    Returns:
        `{"image": path, "predictions": [{"label": name, "probability": p}, ...]}` for each image, or
        `{"image": path, "error": reason}`.
    """
    trained = _loaded(model, trust, spec, classes)
    paths = [images] if isinstance(images, (str, os.PathLike)) else images
    return Predictions(predict_images(trained, find_images(paths), top=top))


def preview(run: Run, path: str | os.PathLike[str] = "preview.png", count: int = 8, draws: int = 4) -> None:
    """Draws a contact sheet: training images of `run` beside what its model will see of them, with labels.

    Args:
        path: the picture to write.
        count: how many images.
        draws: how often each is augmented.

    Raises:
        ModelTrainerError: the data cannot be read, or the picture not be written.
    """
    draw_preview(run, os.fspath(path), count, draws)


def _loaded(
    model: str | os.PathLike[str] | TrainedModel,
    trust: bool,
    spec: ModelSpec | str | None,
    classes: Sequence[str] | None,
) -> TrainedModel:
    if isinstance(model, TrainedModel):
        return model
    with plain_messages():
        return load_model(model, trust, spec=spec, classes=classes)


def _source_of(path: str, root: str | None, classes: Sequence[str] | None, *, is_foreign: bool) -> Source:
    if not is_foreign or classes is None:
        return source_of_path(path, root=root, classes=classes)
    source = source_of_path(path, root=root)
    # They are in the order of the model's outputs: data that have names of their own are not read in that order.
    names = () if isinstance(source, ImageFolder) else source.read_shared().classes
    has_only_numbers = names and names == tuple(map(str, range(len(names))))
    return source_of_path(path, root=root, classes=classes) if has_only_numbers else source


def _data_of_run(model_file: Path, trust: bool) -> Source:
    options = model_file.with_name("training_options.json")
    if not files.is_file(options):
        raise DataError(f"{model_file} has no training_options.json beside it; say which data: --data PATH")
    return load_validation_data(options, trust)
