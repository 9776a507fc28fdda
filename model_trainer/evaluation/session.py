"""An evaluation as users ask for it: which models, on which images, how, and where its files go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from absl import logging
from rich.console import Console

from model_trainer.errors import ConfigError
from model_trainer.evaluation.data import data_of_run
from model_trainer.evaluation.evaluate import EvaluatedModel, evaluate_ensemble, evaluate_model
from model_trainer.evaluation.files import FILE_NAME, FOLDER, IMAGES, PREDICTION_FILES
from model_trainer.evaluation.predictions import TTA
from model_trainer.evaluation.record import DataSource, record_evaluation
from model_trainer.evaluation.slices import coarse_labels, read_mapping, slice_metrics
from model_trainer.inference.choose import EngineName, choose_for_many
from model_trainer.model_files.load import find_model_file
from model_trainer.model_files.temperature import write_temperature
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.sources.manifest.other_columns import column_values
from model_trainer.sources.source import Source, each_read_once
from model_trainer.storage import files
from model_trainer.storage.manifest import update_manifest

__all__ = ["EvaluationOptions", "evaluate_and_record", "evaluation_folder"]

_OF_COARSE_CLASSES = ("main_metric", "metrics", "per_class", "confusion")


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated.

    Attributes:
        by: columns of the manifest; metrics are also computed for each of their values.
        coarse: a file that maps classes to coarser classes, see `read_mapping`.
        tta: test-time augmentation: "flips" averages each image and its mirror image.
        calibrated: whether the logits are divided by the temperature that was fitted on validation data.
        batch_size: images per batch.
        engine: the inference engine; "auto" is the fastest exact one if there are many images.
        with_images: whether thumbnails and attribution maps are written.
        known_bad: unreadable images that have been logged already, by name, each with the reason.
    """

    by: tuple[str, ...] = ()
    coarse: str | None = None
    tta: TTA | None = None
    calibrated: bool = False
    batch_size: int = 32
    engine: EngineName = "auto"
    with_images: bool = True
    known_bad: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Groups:
    """How the images are grouped, read before the model runs so that a mistake is reported at once.

    Attributes:
        columns: the value of each example, by the name of the column.
        mapping: the coarser class of each class; None without coarser classes.
    """

    columns: dict[str, list[str]]
    mapping: dict[str, str] | None


def evaluation_folder(model_file: PurePath, data: DataSource, options: EvaluationOptions) -> PurePath | None:
    """Returns the folder for the evaluation of a run's model; None if the model is not in an output folder.

    The metrics of the model that `predict` uses, on the data of the run, are in `evaluation/`, from which the report is
    made. Those of another model file, on other data, or with other probabilities are in a folder beside it that is
    named after them.
    """
    if not files.is_file(model_file.with_name("training_options.json")):
        return None
    name = "" if find_model_file(model_file.parent) == model_file else f"-{model_file.stem}"
    name += f"-{options.tta}" if options.tta else ""
    name += "-calibrated" if options.calibrated else ""
    if data.split == "other":
        name += f"-{'-'.join(PurePath(data.origin).parts[-2:])}"
    safe = "".join(each if each.isalnum() or each in "._-" else "-" for each in name)
    return model_file.with_name(f"{FOLDER}{safe[:80].rstrip('.-')}")


def _check_output(folder: PurePath) -> None:
    """Raises ConfigError if the folder that the user chose has files that would be replaced but are not ours."""
    if files.exists(folder / FILE_NAME):
        return
    present = [name for name in (*PREDICTION_FILES, IMAGES) if files.exists(folder / name)]
    if present:
        raise ConfigError(
            f"is {folder}, which has {present[0]} already, and no {FILE_NAME} beside it. Choose an empty folder, so "
            "that no file of yours is replaced.",
            "output",
        )


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
        models: the model, or several whose probabilities are averaged.
        source: the data; None is the validation data of the first model's run.
        output: the folder to write; None is that of `evaluation_folder`.
        write: whether to write files at all.
        trust: whether code that the run's options name may be executed.
        console: shows progress.
        data: describes `source` if it is the data of the run; without it, `source` counts as other data.

    Returns:
        The evaluation, and the folder that was written.

    Raises:
        ConfigError: options that do not go together; the message has the cure.
        DataError: the data cannot be read, or do not fit the model.
        MissingExtra: the engine is not installed.
    """
    first = models[0]
    if write and output is not None and output != first.path.with_name(FOLDER):
        _check_output(output)
    if options.calibrated:
        models = [model.calibrated() for model in models]
    is_calibrated = any(model.is_calibrated for model in models)
    with each_read_once():
        if source is None:
            source, data = data_of_run(first.path, trust)
        examples = source if isinstance(source, Examples) else source.read_shared()
        data = data or DataSource(examples.origin, "other")
        groups = _read_groups(first, source, examples, options)
        models = [choose_for_many(model, len(examples), options.engine) for model in models]
        if len(models) > 1:
            arguments = (models, examples, options.batch_size)
            evaluated = evaluate_ensemble(*arguments, tta=options.tta, console=console)
        else:
            evaluated = evaluate_model(
                models[0],
                examples,
                options.batch_size,
                tta=options.tta,
                console=console,
                known_bad=options.known_bad,
            )
    slices, coarse = tuple(_slices(evaluated, groups, options)), _coarse(evaluated, groups, options)
    evaluated = replace(evaluated, slices=slices, coarse=coarse)
    folder = output if output is not None else evaluation_folder(first.path, data, options)
    if not write or folder is None:
        return evaluated, None
    record_evaluation(
        folder,
        evaluated,
        data,
        tta=options.tta,
        ensemble=[str(model.path) for model in models] if len(models) > 1 else (),
        calibrated=is_calibrated,
        with_images=options.with_images,
    )
    is_plain = len(models) == 1 and options.tta is None and not is_calibrated
    if is_plain and data.split == "validation" and files.is_file(first.path.with_name("model_spec.json")):
        temperature = evaluated.evaluation.temperature
        write_temperature(first.path, temperature)
        if temperature is None and first.task.loss_activation == "softmax":
            logging.info(
                "Temperature scaling does not improve the probabilities of %s: --calibrated changes nothing.",
                first.path.name,
            )
    if folder.parent == first.path.parent:
        update_manifest(folder.parent, folder.name, "model_spec.json")
    return evaluated, folder


def _read_groups(
    model: TrainedModel, source: Source | Examples, examples: Examples, options: EvaluationOptions
) -> _Groups:
    if options.by and isinstance(source, Examples):
        raise ConfigError("needs `data` to be a source, such as a Manifest.", "by")
    columns = {by: column_values(source, examples, by) for by in options.by if isinstance(source, Source)}
    if options.coarse is None:
        return _Groups(columns, None)
    if model.task.label_kind != "single":
        raise ConfigError("needs one class for each image; this model predicts tags.", "coarse")
    return _Groups(columns, read_mapping(options.coarse, model.classes))


def _slices(evaluated: EvaluatedModel, groups: _Groups, options: EvaluationOptions) -> list[dict[str, Any]]:
    """Computes the metrics for each value of the columns, and for each coarser class."""
    evaluation, predictions = evaluated.evaluation, evaluated.predictions
    slices = [
        slice_metrics(evaluation, [values[row] for row in predictions.rows], by)
        for by, values in groups.columns.items()
    ]
    if groups.mapping is not None:
        coarse_classes = list(groups.mapping.values())
        values = [coarse_classes[label] for label in predictions.examples.label_rows().most_likely()]
        slices.append(slice_metrics(evaluation, values, f"coarser class of {options.coarse}"))
    return slices


def _coarse(evaluated: EvaluatedModel, groups: _Groups, options: EvaluationOptions) -> dict[str, Any] | None:
    """Computes the metrics of the coarser classes."""
    if groups.mapping is None:
        return None
    predictions, task = evaluated.predictions, evaluated.trained.task
    labels = predictions.examples.label_rows().most_likely()
    labels, probabilities, classes = coarse_labels(labels, predictions.probabilities, groups.mapping)
    content = task.evaluate(labels, probabilities, classes, None, predictions.num_bad).to_dict()
    selected = {key: value for key, value in content.items() if key in _OF_COARSE_CLASSES}
    return {"mapping": options.coarse, "classes": list(classes), **selected}
