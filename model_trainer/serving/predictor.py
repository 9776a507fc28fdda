"""Predicts the labels of image files with a trained model."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from model_trainer.cpu_cores import num_usable_cores
from model_trainer.display.pages import render_fragment
from model_trainer.errors import DataError
from model_trainer.evaluation.data import Model
from model_trainer.images.thumbnail import make_thumbnail
from model_trainer.inference.choose import EngineName, choose_for_many
from model_trainer.messages import counted
from model_trainer.model_files.load import TrainedModel, load_model
from model_trainer.pipeline.image import read_image
from model_trainer.sources.image_folder import IMAGE_SUFFIXES, list_images
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.storage.read import read_image_file
from model_trainer.training.log import plain_messages
from model_trainer.training.progress import EpochProgress

__all__ = ["Predictions", "find_images", "predict_files", "predict_images"]

MAX_IMAGES = 12
MAX_LABELS = 2
MIN_PROBABILITY = 0.01  # of labels after the first
BATCHES_AHEAD = 3  # decoded while one is computed, so that the network does not wait for a few large images
MAX_DECODERS = 16  # threads; more would wait for Python's global interpreter lock

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
        is_named_as_image = "://" in path and path.lower().endswith(IMAGE_SUFFIXES)  # saves requests to a store
        if is_named_as_image or not files.is_folder(path):
            image_files.append(path)
            continue
        images = list_images(path).images
        if not images:
            raise DataError(f"The folder {path} contains no images.")
        image_files += images
    return image_files


def predict_files(
    model: Model,
    images: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    top: int | None = None,
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
    calibrated: bool = False,
    engine: EngineName = "auto",
    console: Console | None = None,
) -> Predictions:
    """Loads a model and predicts the labels of image files and folders; the arguments are those of `api.predict`.

    Args:
        console: shows progress; None shows none.
    """
    with plain_messages():
        trained = model if isinstance(model, TrainedModel) else load_model(model, trust, spec=spec, classes=classes)
        if calibrated:
            trained = trained.calibrated()
        paths = find_images([images] if isinstance(images, (str, os.PathLike)) else images)
        return Predictions(predict_images(trained, paths, top=top, engine=engine, console=console))


def predict_images(
    trained: TrainedModel,
    paths: Sequence[str],
    *,
    top: int | None = None,
    batch_size: int = 32,
    engine: EngineName = "auto",
    console: Console | None = None,
) -> Iterator[Prediction]:
    """Yields the predictions for each image in order, or the reason why an image cannot be read.

    Images are decoded in threads while the network computes the batches before them.

    Args:
        top: number of labels for each image; None returns the 5 most probable classes, or the tags that reach their
            thresholds.
        batch_size: images per batch.
        engine: the inference engine; "auto" is the fastest exact one if there are many images.
        console: shows progress; None shows none.

    Raises:
        MissingExtra, ConfigError: `engine` is not available.
    """
    trained = choose_for_many(trained, len(paths), engine)
    num_done = 0
    with (
        contextlib.closing(_decoded(trained.spec, paths, BATCHES_AHEAD * batch_size)) as images,
        EpochProgress(console or Console(quiet=True), "predicting", len(paths)) as progress,
    ):
        while batch := list(itertools.islice(images, batch_size)):
            yield from _predictions(trained, paths[num_done : num_done + len(batch)], batch, top)
            num_done += len(batch)
            if progress.advance(len(batch)):
                progress.show(num_done, {}, images_left=len(paths) - num_done)


def _predictions(
    trained: TrainedModel, paths: Sequence[str], images: list[np.ndarray | str], top: int | None
) -> Iterator[Prediction]:
    """The predictions of a batch; in place of an image there may be the reason why it cannot be read."""
    arrays = [image for image in images if not isinstance(image, str)]
    rows = iter(trained.probabilities(np.stack(arrays))) if arrays else iter(())
    for path, image in zip(paths, images, strict=True):
        if isinstance(image, str):
            yield {"image": path, "error": image}
        else:
            labels = trained.task.decode(next(rows), trained.classes, top, trained.thresholds)
            yield {"image": path, "predictions": labels}


def _decoded(spec: ModelSpec, paths: Sequence[str], num_ahead: int) -> Generator[np.ndarray | str]:
    """Yields the image at each path, or the reason why it cannot be read; up to `num_ahead` are decoded in advance."""
    num_threads = min(MAX_DECODERS, num_usable_cores(), max(1, len(paths)))
    threads = concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix="decoder")
    waiting: collections.deque[concurrent.futures.Future[np.ndarray | str]] = collections.deque()
    try:
        for path in paths:
            if len(waiting) >= num_ahead:
                yield waiting.popleft().result()
            waiting.append(threads.submit(_read, path, spec))
        while waiting:
            yield waiting.popleft().result()
    finally:
        # After Ctrl-C or an error no more are decoded; each thread finishes the image that it has begun.
        threads.shutdown(cancel_futures=True)


def _read(path: str, spec: ModelSpec) -> np.ndarray | str:
    try:
        return read_image(path, spec)
    except DataError as error:
        return str(error).removeprefix(f"{path} ").rstrip(".")
