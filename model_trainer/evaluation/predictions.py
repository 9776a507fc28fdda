"""Predictions for labelled images, computed with the validation pipeline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_trainer.errors import DataError
from model_trainer.model_files.load import TrainedModel
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.sources.examples import Examples

__all__ = ["Predictions", "predict_examples"]


@dataclass(frozen=True)
class Predictions:
    """Predicted probabilities and their targets.

    Attributes:
        targets: float32 `(num_images, num_classes)`; NaN is unknown.
        probabilities: float32 `(num_images, num_classes)`.
        num_bad: number of images that could not be read; they are not in `targets` and `probabilities`.
    """

    targets: np.ndarray
    probabilities: np.ndarray
    num_bad: int


def predict_examples(trained: TrainedModel, examples: Examples, batch_size: int = 32) -> Predictions:
    """Runs the model on the examples; each image counts once, whatever its weight.

    Args:
        batch_size: number of images that are computed together.

    Raises:
        DataError: no image could be read, or the classes of the examples differ from the model's.
    """
    examples = examples.without_unknown_classes(trained.classes).with_classes(trained.classes).with_equal_weights()
    trained.task.check(examples)
    examples.check_local()
    missing = np.flatnonzero(examples.num_bytes < 0)
    if len(missing) == len(examples):
        raise DataError(
            f"{examples.origin}: none of its {len(examples):,} images exists; the first is {examples.name(0)}. "
            "Is its folder right, such as root= of a Manifest?"
        )
    bad_images = BadImages(max_count=len(examples) - 1, max_share=0.0, num_examples=len(examples))
    targets, probabilities = [], []
    for batch in Pipeline(examples, trained.spec, batch_size, bad_images).validation():
        readable = np.asarray(batch.weights) > 0
        if readable.any():
            probabilities.append(trained.probabilities(np.asarray(batch.inputs)[readable]))
            targets.append(np.asarray(trained.task.targets(batch.targets, len(trained.classes)))[readable])
    bad_images.check()
    return Predictions(np.concatenate(targets), np.concatenate(probabilities), len(bad_images))
