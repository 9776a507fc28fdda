"""Predicts the labels of image files with a trained model."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from model_trainer.display.pages import render_fragment
from model_trainer.errors import DataError
from model_trainer.images.thumbnail import make_thumbnail
from model_trainer.messages import counted
from model_trainer.model_files.load import TrainedModel
from model_trainer.pipeline.image import read_image
from model_trainer.sources.image_folder import list_images
from model_trainer.storage import files
from model_trainer.storage.read import read_image_file

__all__ = ["Predictions", "find_images", "predict_images"]

MAX_IMAGES = 12
MAX_LABELS = 2
MIN_PROBABILITY = 0.01  # of labels after the first

Prediction = dict[str, Any]  # {"image": path, "predictions": [{"label", "probability"}]} or {"image", "error"}


class Predictions(list[Prediction]):
    """A list of predictions, one per image, which a notebook shows with thumbnails."""

    def _repr_html_(self) -> str:
        return render_fragment(
            "predictions.html",
            heading=f"Predictions for {counted(len(self), 'image{s}')}",
            thumbnails=[
                make_thumbnail(
                    functools.partial(read_image_file, prediction["image"]), prediction["image"], _caption(prediction)
                )
                for prediction in self[:MAX_IMAGES]
            ],
            num_more=max(0, len(self) - MAX_IMAGES),
        )


def _caption(prediction: Prediction) -> str:
    if "error" in prediction:
        return os.path.basename(prediction["image"])
    top_labels = prediction["predictions"][:MAX_LABELS]
    shown_labels = [
        each for each in top_labels if each is top_labels[0] or each.get("probability", 1.0) >= MIN_PROBABILITY
    ]
    return ", ".join(map(_format_label, shown_labels)) or "no label"


def _format_label(label: dict[str, Any]) -> str:
    numbers = (f"{value:.2f}" for name, value in label.items() if name != "label")
    return " ".join([label["label"], *numbers])


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns the image files at `paths`; folders are searched recursively.

    Raises:
        DataError: a folder contains no images.
    """
    image_files: list[str] = []
    for path in [os.fspath(path) for path in paths]:
        if not files.is_local_folder(path):
            image_files.append(path)
            continue
        images = list_images(path).images
        if not images:
            raise DataError(f"The folder {path} contains no images.")
        image_files += images
    return image_files


def predict_images(
    trained: TrainedModel, paths: Iterable[str], *, top: int | None = None, batch_size: int = 32
) -> Iterator[Prediction]:
    """Yields the predictions for each image in order, or the reason why an image cannot be read.

    Args:
        top: number of labels for each image; None returns the 5 most probable classes, or the tags that reach their
            thresholds.
        batch_size: number of images that are computed together.
    """
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, batch_size)):
        images, errors = _read(batch, trained)
        probabilities = iter(trained.probabilities(np.stack(images))) if images else iter(())
        for path in batch:
            if path in errors:
                yield {"image": path, "error": errors[path]}
            else:
                predictions = trained.task.decode(next(probabilities), trained.classes, top, trained.thresholds)
                yield {"image": path, "predictions": predictions}


def _read(paths: list[str], trained: TrainedModel) -> tuple[list[np.ndarray], dict[str, str]]:
    images, errors = [], {}
    for path in paths:
        try:
            images.append(read_image(path, trained.spec))
        except DataError as error:
            errors[path] = str(error).removeprefix(f"{path} ").rstrip(".")
    return images, errors
