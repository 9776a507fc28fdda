"""An evaluation as users ask for it: which models, on which images, how, and where its files go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from rich.console import Console

from model_trainer.errors import ConfigError
from model_trainer.evaluation.data import data_of_run
from model_trainer.evaluation.evaluate import EvaluatedModel, evaluate_ensemble, evaluate_model
from model_trainer.evaluation.files import FOLDER
from model_trainer.evaluation.predictions import TTA
from model_trainer.evaluation.record import DataSource, record_evaluation
from model_trainer.evaluation.slices import coarse_labels, read_mapping, slice_metrics
from model_trainer.model_files.temperature import write_temperature
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.sources.manifest.other_columns import column_values
from model_trainer.sources.source import Source, each_read_once
from model_trainer.storage import files

__all__ = ["EvaluationOptions", "evaluate_and_record", "evaluation_folder"]

_OF_COARSE_CLASSES = ("main_metric", "metrics", "per_class", "confusion")


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated.

    Attributes:
        by: columns of the manifest; metrics are also computed for each of their values.
        coarse: a file that maps classes to coarser classes, see `read_mapping`.
        tta: test-time augmentation: "flips" averages each image and its mirror image.
        calibrated: divide the logits by the temperature that was fitted on validation data.
        batch_size: number of images that are computed together.
        with_images: whether thumbnails and attribution maps are written.
    """

    by: tuple[str, ...] = ()
    coarse: str | None = None
    tta: TTA | None = None
    calibrated: bool = False
    batch_size: int = 32
    with_images: bool = True


@dataclass(frozen=True, eq=False)
class _Extras:
    slices: list[dict[str, Any]] = field(default_factory=list)
    coarse: dict[str, Any] | None = None


def evaluation_folder(model_file: PurePath, data: DataSource) -> PurePath | None:
    """Returns the folder in which the evaluation of a run belongs; None outside of an output folder.

    The metrics on the data of the run are in `evaluation/`, from which the report is made; those on other data are in
    a folder beside it that is named after them.
    """
    if not files.is_file(model_file.with_name("training_options.json")):
        return None
    if data.split != "other":
        return model_file.with_name(FOLDER)
    name = "".join(each if each.isalnum() or each in "._-" else "-" for each in data.origin.strip("/"))
    return model_file.with_name(f"{FOLDER}-{name.strip('.-')[-80:] or 'other'}")


def evaluate_and_record(
    models: Sequence[TrainedModel],
    source: Source | Examples | None,
    options: EvaluationOptions,
    output: PurePath | None,
    *,
    write: bool,
    trust: bool = False,
    console: Console | None = None,
    data: DataSource | None = None,
) -> tuple[EvaluatedModel, PurePath | None]:
    """Evaluates a model, or the mean of several, and writes the files of the evaluation.

    The temperature that calibrates the model is stored beside it if the data are its validation data.

    Args:
        source: the data; None is the validation data of the first model's run.
        output: the folder to write; None is that of `evaluation_folder`.
        write: whether to write files at all.
        trust: whether code that the run's options name may be executed.
        console: shows progress.
        data: what `source` is, if it is known to be that of the run.

    Returns:
        The evaluation, and the folder that was written.

    Raises:
        ConfigError: options that do not go together; the message has the cure.
        DataError: the data cannot be read, or do not fit the model.
    """
    first = models[0]
    if options.calibrated:
        models = [model.calibrated() for model in models]
    with each_read_once():
        if source is None:
            source, data = data_of_run(first.path, trust)
        examples = source if isinstance(source, Examples) else source.read_shared()
        data = data or DataSource(examples.origin, "other")
        if len(models) > 1:
            arguments = (models, examples, options.batch_size)
            evaluated = evaluate_ensemble(*arguments, tta=options.tta, console=console)
        else:
            evaluated = evaluate_model(models[0], examples, options.batch_size, tta=options.tta, console=console)
        extras = _extras(evaluated, source, options)
    folder = output if output is not None else evaluation_folder(first.path, data)
    if not write or folder is None:
        return evaluated, None
    record_evaluation(
        folder,
        evaluated,
        data,
        slices=extras.slices,
        coarse=extras.coarse,
        tta=options.tta,
        ensemble=[str(model.path) for model in models] if len(models) > 1 else (),
        calibrated=options.calibrated,
        with_images=options.with_images,
    )
    is_plain = len(models) == 1 and options.tta is None and not options.calibrated
    if is_plain and data.split == "validation" and files.is_file(first.path.with_name("model_spec.json")):
        write_temperature(first.path, temperature_of(evaluated))
    return evaluated, folder


def temperature_of(evaluated: EvaluatedModel) -> float | None:
    """Returns the temperature that the evaluation has fitted; None for a task without one."""
    calibration = evaluated.evaluation.to_dict().get("calibration") or {}
    temperature = calibration.get("temperature")
    return None if temperature is None else float(temperature)


def _extras(evaluated: EvaluatedModel, source: Source | Examples, options: EvaluationOptions) -> _Extras:
    """Computes the slices and the metrics of coarser classes."""
    evaluation, predictions = evaluated.evaluation, evaluated.predictions
    extras = _Extras()
    if options.by and isinstance(source, Examples):
        raise ConfigError("needs `data` to be a source, such as a Manifest.", "by")
    for column in options.by:
        assert isinstance(source, Source)
        extras.slices.append(slice_metrics(evaluation, column_values(source, predictions.examples, column), column))
    if options.coarse is None:
        return extras
    task, classes = evaluated.trained.task, evaluated.trained.classes
    if task.label_kind != "single":
        raise ConfigError("needs one class for each image; this model predicts tags.", "coarse")
    mapping = read_mapping(options.coarse, classes)
    labels = predictions.examples.label_rows().most_likely()
    extras.slices.append(
        slice_metrics(evaluation, [mapping[classes[label]] for label in labels], f"coarser class of {options.coarse}")
    )
    coarse = coarse_labels(labels, predictions.probabilities, mapping)
    coarse_evaluation = task.evaluate(*coarse, None, predictions.num_bad)
    content: dict[str, Any] = {"mapping": options.coarse, "classes": list(coarse[2])}
    content |= {key: value for key, value in coarse_evaluation.to_dict().items() if key in _OF_COARSE_CLASSES}
    return _Extras(extras.slices, content)
