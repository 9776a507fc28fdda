"""The images of an evaluation that are worth a look: thumbnails and attribution maps, as JPEG files."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from absl import logging

from model_trainer.evaluation.attribution import NoFeatureMap, attribution_maps, overlay
from model_trainer.evaluation.files import IMAGES
from model_trainer.evaluation.predictions import Predictions, load_resized_images
from model_trainer.images.thumbnail import jpeg_of, make_thumbnail
from model_trainer.metrics.estimate import finite_or_none
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.storage import files
from model_trainer.tasks.evaluation import Gallery, GalleryImage

__all__ = ["write_galleries"]

SIDE = 224  # pixels

_IMAGE_NAME = re.compile(r"\d{6,}(-\d+)?\.jpg")


def write_galleries(
    folder: PurePath,
    trained: TrainedModel | None,
    predictions: Predictions,
    galleries: Sequence[Gallery],
    columns: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Writes the images of `galleries` to `folder/images`, and returns the "galleries" of `evaluation.json`.

    Args:
        folder: the folder of the evaluation.
        trained: the model, for attribution maps; None draws none.
        predictions: the evaluated images and their probabilities.
        galleries: the images to write; an image of several galleries is written once.
        columns: the columns of `predictions.csv`, which have the labels.

    Returns:
        For each gallery a dictionary that can be written as JSON. It contains its images: name, labels and probability
        of each, and the paths of its thumbnail ("file") and its attribution map ("map"), relative to `folder`.

    Raises:
        StorageError: an image cannot be written.
    """
    images = folder / IMAGES
    for name in files.names_in(images):
        if _IMAGE_NAME.fullmatch(name):  # of an earlier evaluation
            files.delete(images / name)
    indices = list(dict.fromkeys(image.index for gallery in galleries for image in gallery.images))
    if not indices:
        return []
    files.make_folder(images)
    thumbnails = {index: _write_thumbnail(images, predictions.examples, index) for index in indices}
    pairs = list(dict.fromkeys((image.index, image.class_index) for each in galleries for image in each.images))
    maps = _write_maps(images, trained, predictions.examples, [pair for pair in pairs if thumbnails[pair[0]][0]])

    def entry(image: GalleryImage) -> dict[str, Any]:
        file, problem = thumbnails[image.index]
        return {
            "image": predictions.examples.name(image.index),
            "row": image.index,
            "file": file,
            "map": maps.get((image.index, image.class_index)),
            "true": _labels(columns, "true_label", image.index),
            "predicted": _labels(columns, "predicted_label", image.index),
            "probability": finite_or_none(float(predictions.probabilities[image.index, image.class_index])),
            "caption": image.caption,
            "problem": problem,
        }

    return [
        {
            "name": gallery.name,
            "title": gallery.title,
            "explanation": gallery.explanation,
            "images": [entry(image) for image in gallery.images],
        }
        for gallery in galleries
    ]


def _labels(columns: Mapping[str, Any], name: str, index: int) -> list[str]:
    """The label of an image in the column `name`, or its tags in the column with this name in the plural."""
    if name in columns:
        return [str(columns[name][index])]
    joined = str(columns.get(f"{name}s", {index: ""})[index])
    return joined.split("|") if joined else []


def _write_thumbnail(folder: PurePath, examples: Examples, index: int) -> tuple[str | None, str]:
    """Writes the thumbnail; returns its path relative to the evaluation's folder, or None and the reason."""
    row = int(examples.rows[index])
    crop = None
    if examples.crops is not None and examples.crops[index][2] > 0:
        top, left, height, width = (int(edge) for edge in examples.crops[index])
        crop = (top, left, height, width)
    thumbnail = make_thumbnail(functools.partial(examples.images.read, row), examples.name(index), "", crop, SIDE)
    if thumbnail.jpeg is None:
        return None, thumbnail.problem
    name = f"{index:06d}.jpg"
    files.write(folder / name, thumbnail.jpeg)
    return f"{folder.name}/{name}", ""


def _write_maps(
    folder: PurePath, trained: TrainedModel | None, examples: Examples, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], str]:
    """Writes an attribution map for each image and class of `pairs`, over the image; returns the relative paths."""
    if trained is None or not pairs:
        return {}
    indices = list(dict.fromkeys(index for index, _ in pairs))
    images = load_resized_images(trained, examples, indices)
    position = {index: number for number, index in enumerate(indices)}
    image_of_pair = images[[position[index] for index, _ in pairs]]
    try:
        maps = attribution_maps(trained, image_of_pair, np.array([class_index for _, class_index in pairs]))
    except NoFeatureMap as reason:
        logging.info("No attribution maps: %s", reason)
        return {}
    paths = {}
    for (index, class_index), image, attribution in zip(pairs, image_of_pair, maps, strict=True):
        name = f"{index:06d}-{class_index}.jpg"
        files.write(folder / name, jpeg_of(_enlarged(overlay(image, attribution)), SIDE))
        paths[index, class_index] = f"{folder.name}/{name}"
    return paths


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """Enlarges a small image by an integer factor, so that it is about as large as a thumbnail."""
    factor = max(1, SIDE // max(pixels.shape[:2]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
