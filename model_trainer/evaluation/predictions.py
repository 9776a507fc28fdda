"""Predictions for labeled images, computed with the validation pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from rich.console import Console

from model_trainer.errors import DataError
from model_trainer.messages import counted
from model_trainer.model_files.load import TrainedModel
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline, num_steps
from model_trainer.sources.examples import Examples
from model_trainer.storage.arrays import RowWriter
from model_trainer.training.progress import EpochProgress

__all__ = ["TTA", "NoReadableImage", "Predictions", "average_predictions", "load_resized_images", "predict_examples"]

TTA = Literal["flips"]  # kinds of test-time augmentation
ROWS_PER_CHUNK = 4096


class NoReadableImage(DataError):
    """There is nothing to predict: none of the images can be read."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted probabilities of labeled images.

    Attributes:
        examples: the images that could be read, with the classes of the model and equal sample weights.
        rows: int64 `(num_images,)`, the row of each of them in the examples that were given.
        probabilities: float32 `(num_images, num_classes)`; memory-mapped for a large data set.
        num_bad: number of examples that could not be read; several may be crops of one image.
    """

    examples: Examples
    rows: np.ndarray
    probabilities: np.ndarray
    num_bad: int


def predict_examples(
    trained: TrainedModel,
    examples: Examples,
    batch_size: int = 32,
    *,
    tta: TTA | None = None,
    console: Console | None = None,
    known_bad: Mapping[str, str] = MappingProxyType({}),
) -> Predictions:
    """Runs the model on the examples; each image counts once, whatever its weight.

    Args:
        batch_size: images per batch.
        tta: test-time augmentation; "flips" averages the probabilities of each image and its mirror image.
        console: shows progress; None shows none.
        known_bad: unreadable images that have been logged already, by name, each with the reason.

    Raises:
        NoReadableImage: no image could be read.
        DataError: the classes of the examples differ from the model's.
    """
    examples = examples.without_unknown_classes(trained.classes).with_classes(trained.classes).with_equal_weights()
    trained.task.check(examples)
    examples.check_local()
    missing = np.flatnonzero(examples.num_bytes < 0)
    if len(missing) == len(examples):
        raise NoReadableImage(
            f"{examples.origin}: none of its {len(examples):,} images exists; the first is {examples.name(0)}. "
            "Is its folder right, such as root= of a Manifest?"
        )
    bad_images = BadImages(max_count=len(examples), max_fraction=1.0, num_examples=len(examples))
    if known_bad:
        names = set(examples.names())
        bad_images.take_over({name: reason for name, reason in known_bad.items() if name in names})
    is_readable = np.zeros(len(examples), bool)
    table: RowWriter | None = None
    start, num_batches = 0, num_steps(len(examples), batch_size)
    with EpochProgress(console or Console(quiet=True), "evaluating", num_batches) as progress:
        batches = Pipeline(examples, trained.spec, batch_size, bad_images).validation()
        for number, batch in enumerate(bad_images.checked(batches), 1):
            readable = np.asarray(batch.weights) > 0
            if readable.any():
                probabilities = _probabilities(trained, np.asarray(batch.inputs)[readable], tta)
                table = table or RowWriter(probabilities.shape[1], len(examples))  # not always one per class
                table.append(probabilities)
            is_readable[start : start + len(readable)] = readable
            start += len(readable)
            if progress.advance(len(readable)):
                progress.show(number, {}, images_left=len(examples) - start)
    if table is None:
        name, reason = next(iter(bad_images.reasons.items()))
        raise NoReadableImage(
            f"{examples.origin}: none of its {counted(len(examples), 'image{s}')} could be read; the first: {name} "
            f"{reason}. See model-trainer doctor."
        )
    rows = np.flatnonzero(is_readable)
    readable_examples = examples if len(rows) == len(examples) else examples.take(rows)
    return Predictions(readable_examples, rows, table.finish(), len(examples) - len(rows))


def _probabilities(trained: TrainedModel, images: np.ndarray, tta: TTA | None) -> np.ndarray:
    probabilities = trained.probabilities(images)
    if tta is None:
        return probabilities
    return (probabilities + trained.probabilities(np.ascontiguousarray(images[:, :, ::-1]))) / 2


def average_predictions(predictions: Sequence[Predictions]) -> Predictions:
    """Averages the probabilities of an ensemble, for the images that all of its models could read.

    Args:
        predictions: those of each model, for the same examples and the same classes in the same order.
    """
    first = predictions[0]
    rows = first.rows
    for each in predictions[1:]:
        rows = np.intersect1d(rows, each.rows, assume_unique=True)
    table = RowWriter(first.probabilities.shape[1], len(rows))
    positions = [np.searchsorted(each.rows, rows) for each in predictions]
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        chunk = slice(start, start + ROWS_PER_CHUNK)
        pairs = zip(predictions, positions, strict=True)
        chunks = np.stack([each.probabilities[position[chunk]] for each, position in pairs])
        table.append(chunks.mean(axis=0, dtype=np.float64))
    num_bad = first.num_bad + len(first.rows) - len(rows)
    examples = first.examples if len(rows) == len(first.rows) else first.examples.take(positions[0])
    return Predictions(examples, rows, table.finish(), num_bad)


def load_resized_images(trained: TrainedModel, examples: Examples, indices: Iterable[int]) -> np.ndarray:
    """Reads the images at `indices`, cropped and resized for the model but not preprocessed.

    Returns:
        uint8 `(num_indices, height, width, channels)`; an image that cannot be read is black.
    """
    chosen = examples.take(np.fromiter(indices, np.int64))
    if not len(chosen):
        return np.zeros((0, *trained.spec.target_size), np.uint8)
    bad_images = BadImages(max_count=len(chosen), max_fraction=1.0, num_examples=len(chosen))
    batches = Pipeline(chosen, trained.spec, 32, bad_images).validation()
    return np.concatenate([np.asarray(batch.inputs) for batch in bad_images.checked(batches)])
