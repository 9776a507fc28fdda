"""The functions for users: `train`, `train_folds`, `evaluate`, `predict` and `preview`."""

from __future__ import annotations

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip  # before anything else imports TensorFlow

import os
from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console

from model_trainer.cluster.launchers import find_hosts
from model_trainer.display.notebook import cell_log
from model_trainer.evaluation.data import Model, load_models, source_of
from model_trainer.evaluation.folds import FoldsResult, train_and_evaluate_folds
from model_trainer.evaluation.folds_table import print_folds
from model_trainer.evaluation.session import EvaluationOptions, evaluate_and_record
from model_trainer.inference.choose import EngineName
from model_trainer.model_files.load import load_model
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.report.after_training import announce_report, report_folds, report_run
from model_trainer.report.preview import draw_preview
from model_trainer.run.run import Run
from model_trainer.serving.predictor import predict_files
from model_trainer.sources.source import Source, each_read_once
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.training.log import plain_messages
from model_trainer.training.summary import print_summary
from model_trainer.training.train import Result, train_model

__all__ = ["evaluate", "load_model", "predict", "preview", "train", "train_folds"]


def train(
    run: Run,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
    *,
    hosts: str | None = None,
    host_index: int | None = None,
    report: bool = True,
) -> Result:
    """Trains a run, evaluates it, and prints a table of its epochs and the path of its output folder.

    To train on several machines, call it in the same way on each of them. They find each other by `hosts`, or by the
    environment of Slurm, Open MPI, torchrun, Kubernetes, SageMaker or `TF_CONFIG`; see the page *GPUs and
    machines*.

    Args:
        run: what to train.
        resume: continue the newest run of this name from its last checkpoint; without one start a new run.
        resume_from: continue the run in this output folder.
        hosts: addresses of all machines, such as "gpu01:2222,gpu02:2222".
        host_index: index of this machine in `hosts`, from 0.
        report: evaluate the best model on the validation data at the end, and write `report/index.html`.

    Returns:
        The output folder as `path`, the metrics of each epoch as `history`, and the unreadable images.

    Raises:
        ModelTrainerError: the run, its data or its devices are wrong, or training diverged; the message has the cure.

    Example:
        >>> run = Run(
        ...     name="pets",
        ...     spec=ModelSpec(  # or ModelSpec.named("mobilenet_v2")
        ...         class_="model_trainer.testing.small_backbone",
        ...         preprocess_func="between_plus_minus_1",
        ...         target_size=(16, 16, 3),
        ...     ),
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
    folder = None if resume_from is None else os.fspath(resume_from)
    is_chief = resolved_hosts is None or resolved_hosts.is_chief
    with cell_log():  # in a notebook one output for all of it
        result = train_model(run, resume, folder, resolved_hosts, report_follows=report)
        if is_chief and report:
            with plain_messages():
                try:
                    report_run(result, run, Console(stderr=True))
                finally:
                    announce_report(result)
    if is_chief:
        print_summary(result, Console(force_jupyter=False))  # in a notebook as plain text too
    return result


def train_folds(
    run: Run,
    folds: int = 5,
    seed: int | None = None,
    resume: bool = False,
    *,
    resume_from: str | os.PathLike[str] | None = None,
    report: bool = True,
) -> FoldsResult:
    """Trains a model for each of several folds, evaluates each on the images it has not seen, and prints the metrics.

    The folds divide `train_data` and `val_data` together, or `train_data` alone if there is no other data. They are
    stratified, and never divide a group or the rows of an image; see `Source.folds`. Each fold is an ordinary run, with
    the seed of `run` and an output folder of its own inside `output_dir/<name>-folds-<yyyymmdd-hhmmss>/`. `evaluation/`
    there has the prediction for every image by the model that was not trained on it, and in `label_issues.csv` the
    labels that these predictions contradict.

    Args:
        run: what to train.
        folds: number of folds, 2 to 10,000.
        seed: of the division into folds; None is the seed of the run.
        resume: continue the newest training of this name: finished folds are kept, an interrupted one continues from
            its checkpoint, the others are trained. If there is none, start a new one.
        resume_from: continue the training in this folder.
        report: write a page for each fold, and one for all of them, `report/index.html`.

    Returns:
        The folder as `path`, each metric with mean and spread as `metrics`, and the results of the folds.

    Raises:
        ModelTrainerError: as `train`; also if a resumed training had other folds or other data, or if all images of
            `val_data` are in `train_data` too.

    Example:
        >>> run = Run(spec=ModelSpec.named("mobilenet_v2"), train_data=ImageFolder("data/train"), name="pets")
        >>> result = train_folds(run, folds=5)  # doctest: +SKIP
        >>> result.metrics["accuracy"].mean, result.metrics["accuracy"].standard_deviation  # doctest: +SKIP
        (0.9131, 0.0187)
    """
    with cell_log():
        result = train_and_evaluate_folds(run, folds, seed, resume, resume_from)
        if report and not result.stopped:
            with plain_messages():
                report_folds(result)
    print_folds(result, Console(force_jupyter=False))
    return result


def evaluate(
    model: Model | Sequence[Model],
    data: Source | str | os.PathLike[str] | None = None,
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
    root: str | None = None,
    output: str | os.PathLike[str] | None = None,
    by: str | Sequence[str] = (),
    coarse: str | os.PathLike[str] | None = None,
    tta: Literal["flips"] | None = None,
    calibrated: bool = False,
    batch_size: int = 32,
    engine: EngineName = "auto",
) -> Evaluation:
    """Computes the metrics of a trained model on labeled images.

    Args:
        model: an output folder, an `.hdf5` in one, or a loaded model. A list of several is an ensemble: the mean of
            their probabilities is evaluated.
        data: a source, or a path: a folder with one folder for each class, a manifest, a `.rec`, TFRecord files. None
            is the validation data of the run, or its training data if it has none.
        trust: whether code that the files name may be executed.
        spec: the spec of a model file that Model Trainer did not write; see `load_model`.
        classes: with `spec` the names of the model's outputs, otherwise the names of the classes of `data`, which must
            be a path then. They name class indices that have no names.
        root: base folder of the paths in a manifest.
        output: a folder to which `evaluation.json`, the predictions and the images behind them are written; None
            writes nothing. `model-trainer evaluate` writes them to `evaluation/` in the output folder.
        by: columns of the manifest; the metrics are also computed for each of their values.
        coarse: a JSON file or CSV that maps each class to a coarser one, for which metrics are computed, too.
        tta: test-time augmentation; "flips" averages the probabilities of each image and its mirror image.
        calibrated: divide the logits by the temperature that was fitted on the validation data.
        batch_size: number of images per batch.
        engine: the inference engine, as in `predict`.

    Returns:
        The evaluation of the model's task, with its metrics as attributes, such as `accuracy`.

    Raises:
        ModelFileError, DataError, ConfigError: the model or the data cannot be read.

    Example:
        >>> evaluation = evaluate(result.path, "data/val")  # `result` is that of `train`
        >>> evaluation.num_images
        8
    """
    models_or_paths = [model] if isinstance(model, (str, os.PathLike, TrainedModel)) else list(model)
    options = EvaluationOptions(
        by=(by,) if isinstance(by, str) else tuple(by),
        coarse=None if coarse is None else os.fspath(coarse),
        tta=tta,
        calibrated=calibrated,
        batch_size=batch_size,
        engine=engine,
    )
    folder = None if output is None else files.as_path(output)
    with plain_messages(), each_read_once():
        models = load_models(models_or_paths, trust, spec, classes)
        source = source_of(data, root, classes, is_external=spec is not None)
        evaluated, _ = evaluate_and_record(models, source, options, folder, write=folder is not None, trust=trust)
    return evaluated.evaluation


def predict(
    model: str | os.PathLike[str] | TrainedModel,
    images: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    top: int | None = None,
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
    calibrated: bool = False,
    engine: EngineName = "auto",
) -> list[dict[str, Any]]:
    """Predicts the labels of images.

    Args:
        model: an output folder, an `.hdf5` in one, or a loaded model.
        images: paths of files and folders; folders are searched recursively.
        top: number of labels for each image; None returns the 5 most probable classes, or the tags that reach their
            thresholds.
        trust: whether code that the file names may be executed.
        spec, classes: of a model file that Model Trainer did not write; see `load_model`.
        calibrated: divide the logits by the temperature that was fitted on the validation data at the end of training,
            so that about 80 % of the predictions with a probability of 0.8 are correct.
        engine: the inference engine: "keras" for TensorFlow, "openvino", or "auto": the fastest exact one, if there
            are enough images to make up for preparing it.

    Returns:
        For each image `{"image": path, "predictions": [{"label": name, "probability": p}, ...]}`, or
        `{"image": path, "error": reason}` if it cannot be read.

    Raises:
        ModelFileError, DataError, ConfigError: the model cannot be read, or a folder has no images.
        MissingExtra: `engine` is "openvino", which is not installed.

    Example:
        >>> predict(result.path, "photo.jpg", top=1)  # `result` is that of `train`
        [{'image': 'photo.jpg', 'predictions': [{'label': ..., 'probability': ...}]}]
    """
    return predict_files(model, images, top, trust, spec=spec, classes=classes, calibrated=calibrated, engine=engine)


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
