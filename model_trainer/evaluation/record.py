"""Writes an evaluation to a folder: metrics, predictions, and the images behind them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from model_trainer.evaluation.evaluate import EvaluatedModel
from model_trainer.evaluation.files import Column, write_evaluation, write_predictions
from model_trainer.evaluation.galleries import write_galleries
from model_trainer.evaluation.predictions import TTA
from model_trainer.metrics.bootstrap import CONFIDENCE, num_resamples
from model_trainer.storage import files

__all__ = ["DataSource", "record_evaluation"]

ON_TRAINING_DATA = (
    "The run has no validation data, so these are metrics on its training data. They do not show how well the model "
    "generalizes."
)


@dataclass(frozen=True)
class DataSource:
    """Where the evaluated images come from.

    Attributes:
        origin: the path or the name of the data, such as "data/val".
        split: "validation" or "training" if they are those of the run, "out-of-fold", or "other".
        notes: what a reader of the metrics must know.
    """

    origin: str
    split: Literal["validation", "training", "out-of-fold", "other"]
    notes: tuple[str, ...] = field(default=())


def record_evaluation(
    folder: PurePath,
    evaluated: EvaluatedModel,
    data: DataSource,
    *,
    tta: TTA | None = None,
    ensemble: Sequence[str] = (),
    calibrated: bool = False,
    with_images: bool = True,
    more_columns: Mapping[str, Column] | None = None,
) -> None:
    """Writes `evaluation.json`, the predictions, and the images of its galleries to `folder`, which is created.

    `evaluation.json` is written last, so that it does not describe files that have not been written yet.

    Args:
        tta, ensemble, calibrated: how the predictions were made.
        with_images: whether thumbnails and attribution maps are written.
        more_columns: further columns of `predictions.csv`, one value for each image.

    Raises:
        StorageError: a file cannot be written.
    """
    trained, predictions, evaluation = evaluated.trained, evaluated.predictions, evaluated.evaluation
    examples = predictions.examples
    files.make_folder(folder)
    columns = evaluation.image_columns()
    write_predictions(folder, examples.names(), {**columns, **(more_columns or {})}, predictions.probabilities)
    galleries = []
    if with_images:
        # Several models have no single network whose attribution maps could be drawn.
        network = None if ensemble or data.split == "out-of-fold" else trained
        galleries = write_galleries(folder, network, predictions, evaluation.galleries(), columns)
    notes = (ON_TRAINING_DATA, *data.notes) if data.split == "training" else data.notes
    content: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "model": trained.path.name,
        "task": type(trained.task).__name__,
        "label_kind": trained.task.label_kind,
        "data": {
            "origin": data.origin,
            "split": data.split,
            "images": len(examples),
            "unreadable": predictions.num_bad,
            "notes": list(notes),
        },
        "settings": {
            "tta": tta,
            "ensemble": list(ensemble) or None,
            "calibrated": calibrated,
            "bootstrap": {"resamples": num_resamples(len(examples)), "seed": 0, "confidence": CONFIDENCE},
        },
        "classes": list(trained.classes),
        **evaluation.to_dict(),
        "galleries": galleries,
        "slices": list(evaluated.slices),
    }
    if evaluated.coarse is not None:
        content["coarse"] = evaluated.coarse
    write_evaluation(folder, content)
