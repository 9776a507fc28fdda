"""The functions for users: `train`, `evaluate`, `predict` and `preview`."""

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
    """Trains a run, and prints a table of its epochs and the path of its output folder.

    To train on several machines, call it in the same way on each of them. They find each other by `hosts`, or by the
    environment of Slurm, Open MPI, torchrun, Kubernetes, SageMaker or `TF_CONFIG`; see docs/machines.md.

    Args:
        run: what to train.
        resume: continue the newest run of this name from its last checkpoint; without one start a new run.
        resume_from: continue the run in this output folder.
        hosts: addresses of all machines, such as "gpu01:2222,gpu02:2222".
        host_index: index of this machine in `hosts`, from 0.

    Returns:
        The output folder as `path`, the metrics of each epoch as `history`, and the unreadable images.

    Raises:
        ModelTrainerError: the run, its data or its devices are wrong, or training diverged; the message has the cure.

    Example:
        >>> small = {"class": "model_trainer.testing.small_backbone", "preprocess_func": "between_plus_minus_1"}
        >>> run = Run(
        ...     name="pets",
        ...     spec=ModelSpec(**small, target_size=[16, 16, 3]),
        ...     weights=None,
        ...     train_data=ImageFolder("data/train"),
        ...     val_data=ImageFolder("data/val"),
        ...     training=Training(epochs=1, batch_size=8),
        ... )
        >>> result = train(run)
        epoch    loss  accuracy  val_loss  val_accuracy  learning_rate   seconds
        ...
        Results: output/pets-...
    """
    with plain_messages():
        resolved_hosts = find_hosts(hosts, host_index, os.environ)  # may wait for the other machines
    result = train_model(run, resume, None if resume_from is None else os.fspath(resume_from), resolved_hosts)
    if resolved_hosts is None or resolved_hosts.is_chief:
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
    """Computes the metrics of a trained model on labelled images.

    Args:
        model: an output folder, an `.hdf5` in one, or a loaded model.
        data: a source, or a path: a folder with one folder for each class, a manifest, a `.rec`, TFRecord files. None
            is the validation data of the run, or its training data if it has none.
        trust: whether code that the files name may be executed.
        spec: the spec of a model file that Model Trainer did not write; see `load_model`.
        classes: with `spec` the names of the model's outputs, otherwise the names of the classes of `data`, which must
            be a path then. They name class numbers that have no names.
        root: base folder of the paths in a manifest.

    Returns:
        The evaluation of the model's task, with its metrics as attributes, such as `accuracy`.

    Raises:
        ModelFileError, DataError, ConfigError: the model or the data cannot be read.

    Example:
        >>> evaluation = evaluate(result.path, "data/val")  # `result` is that of `train`
        >>> evaluation.num_images
        8
    """
    data = os.fspath(data) if isinstance(data, os.PathLike) else data
    if not isinstance(data, str) and (root is not None or (classes is not None and spec is None)):
        raise ConfigError("needs `data` to be a path (--data PATH).", "classes" if root is None else "root")
    trained = _load(model, trust, spec, None if spec is None else classes)
    with plain_messages():
        logging.info("Model: %s", trained.path)  # one of those in an output folder
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
    """Predicts the labels of images.

    Args:
        model: an output folder, an `.hdf5` in one, or a loaded model.
        images: paths of files and folders; folders are searched recursively.
        top: number of labels for each image; None returns the 5 most probable classes, or the tags that reach their
            thresholds.
        trust: whether code that the file names may be executed.
        spec, classes: of a model file that Model Trainer did not write; see `load_model`.

    Returns:
        For each image `{"image": path, "predictions": [{"label": name, "probability": p}, ...]}`, or
        `{"image": path, "error": reason}` if it cannot be read.

    Raises:
        ModelFileError, DataError, ConfigError: the model cannot be read, or a folder has no images.

    Example:
        >>> predict(result.path, "photo.jpg", top=1)  # `result` is that of `train`
        [{'image': 'photo.jpg', 'predictions': [{'label': ..., 'probability': ...}]}]
    """
    trained = _load(model, trust, spec, classes)
    paths = [images] if isinstance(images, (str, os.PathLike)) else images
    return Predictions(predict_images(trained, find_images(paths), top=top))


def preview(run: Run, path: str | os.PathLike[str] = "preview.png", count: int = 8, draws: int = 4) -> None:
    """Draws a contact sheet: training images next to augmented versions, as the model sees them, with labels.

    Args:
        run: whose training data and augmentation are drawn.
        path: the image file to write.
        count: number of images.
        draws: number of augmented versions of each image.

    Raises:
        ModelTrainerError: the data cannot be read, or the file cannot be written.

    Example:
        >>> run = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"), augment=(RandomFlip(),))
        >>> preview(run, "preview.png", count=2, draws=3)
    """
    draw_preview(run, os.fspath(path), count, draws)


def _load(
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
    # `classes` is in the order of the model's outputs, so it must not rename the classes of data that has names.
    names = () if isinstance(source, ImageFolder) else source.read_shared().classes
    are_numbers = names and names == tuple(map(str, range(len(names))))
    return source_of_path(path, root=root, classes=classes) if are_numbers else source


def _data_of_run(model_file: Path, trust: bool) -> Source:
    options = model_file.with_name("training_options.json")
    if not files.is_file(options):
        raise DataError(f"There is no training_options.json next to {model_file}; choose the data with --data PATH.")
    return load_validation_data(options, trust)
