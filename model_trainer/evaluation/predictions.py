"""What a model says of labelled images, by the pipeline that validation uses."""

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
    """Answers beside what is right.

    Attributes:
        targets: float32 `(num_images, num_classes)`; NaN is unknown.
        probabilities: float32 `(num_images, num_classes)`.
        num_bad: images that could not be read; they are left out above.
    """

    targets: np.ndarray
    probabilities: np.ndarray
    num_bad: int


def predict_examples(trained: TrainedModel, examples: Examples, batch_size: int = 32) -> Predictions:
    """Runs the model over the examples; each image counts once, whatever its weight.

    Raises:
        DataError: no image could be read, or the examples have other classes than the model.
    """
    examples = examples.without_unknown_classes(trained.classes).with_classes(trained.classes).with_equal_weights()
    trained.task.check(examples)
    examples.check_local()
    missing = np.flatnonzero(examples.num_bytes < 0)
    if len(missing) == len(examples):
        raise DataError(
            f"{examples.origin}: none of its {len(examples):,} images is there, the first is "
            f"{examples.name(0)}. Is the path before it right, such as root= of a Manifest?"
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
