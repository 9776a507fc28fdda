"""Compares models on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.evaluate import EvaluatedModel, metrics_of
from model_trainer.metrics.paired import PairedComparison, compare_scores, discordant_images
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.storage import files
from model_trainer.storage.lines import csv_lines

__all__ = ["Comparison", "check_comparable", "compare_evaluated", "write_discordant"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model compared with the first one, on the images that both could read.

    Attributes:
        first, second: paths of the models.
        scores: by name, the comparison of each value that is computed per image, such as "correct" and "loss".
        only_second_correct, only_first_correct: names of the images that only the second model, or only the first,
            predicts correctly.
        metrics: the metrics of both on these images: `(name, first, second)`.
    """

    first: str
    second: str
    scores: dict[str, PairedComparison]
    only_second_correct: tuple[str, ...]
    only_first_correct: tuple[str, ...]
    metrics: tuple[tuple[str, float, float], ...]


def check_comparable(models: Sequence[TrainedModel]) -> None:
    """Checks that each model has the same task and classes as the first; called before they are evaluated.

    Raises:
        ConfigError: a model has another task or other classes.
    """
    first = models[0]
    for each in models[1:]:
        if each.task.label_kind != first.task.label_kind:
            raise ConfigError(
                f"{each.path} and {first.path} have different tasks: one predicts tags, the other one class for each "
                "image. Only models of the same task can be compared."
            )
        if set(each.classes) != set(first.classes):
            raise ConfigError(
                f"{each.path} has different classes from {first.path}: {len(each.classes)} and {len(first.classes)}. "
                "Only models with the same classes can be compared."
            )


def compare_evaluated(models: Sequence[EvaluatedModel]) -> list[Comparison]:
    """Compares each model with the first.

    Args:
        models: evaluated on the same examples.

    Raises:
        ConfigError: the models have different tasks or classes.
        DataError: a model and the first have no readable image in common.
    """
    check_comparable([each.trained for each in models])
    return [_compare(models[0], other) for other in models[1:]]


def _compare(first: EvaluatedModel, second: EvaluatedModel) -> Comparison:
    common = np.intersect1d(first.predictions.rows, second.predictions.rows, assume_unique=True)
    if not len(common):
        raise DataError(f"{first.predictions.examples.origin}: there is no image that both models can read.")
    one, other = (_restricted(each, common) for each in (first, second))
    scores_one, scores_other = one.evaluation.scores(), other.evaluation.scores()
    scores = {name: compare_scores(scores_one[name], scores_other[name]) for name in scores_one if name in scores_other}
    changed = discordant_images(scores_one["correct"], scores_other["correct"]) if "correct" in scores else ((), ())
    names = one.predictions.examples.name
    estimates_one, estimates_other = one.evaluation.estimates(), other.evaluation.estimates()
    return Comparison(
        first=str(first.trained.path),
        second=str(second.trained.path),
        scores=scores,
        only_second_correct=tuple(names(int(row)) for row in changed[1]),
        only_first_correct=tuple(names(int(row)) for row in changed[0]),
        metrics=tuple(
            (name, estimate.value, estimates_other[name].value)
            for name, estimate in estimates_one.items()
            if name in estimates_other
        ),
    )


def _restricted(evaluated: EvaluatedModel, rows: np.ndarray) -> EvaluatedModel:
    """The evaluation of some of the images only."""
    predictions = evaluated.predictions
    if len(rows) == len(predictions.rows):
        return evaluated
    positions = np.searchsorted(predictions.rows, rows)
    fewer = replace(
        predictions,
        examples=predictions.examples.take(positions),
        rows=rows,
        probabilities=predictions.probabilities[positions],
    )
    return EvaluatedModel(evaluated.trained, fewer, metrics_of(evaluated.trained, fewer))


def write_discordant(path: PurePath, comparisons: Sequence[Comparison]) -> None:
    """Writes the images that only one of two models predicts correctly as CSV: `image,first,second,right`.

    The column "right" is "first" or "second".

    Raises:
        StorageError: it cannot be written.
    """
    rows = [
        (name, each.first, each.second, right)
        for each in comparisons
        for names, right in ((each.only_second_correct, "second"), (each.only_first_correct, "first"))
        for name in names
    ]
    files.write(path, csv_lines([("image", "first", "second", "right"), *rows]).encode("utf-8", "backslashreplace"))
