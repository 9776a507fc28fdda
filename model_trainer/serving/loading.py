"""Loads a model for an endpoint: with its engine, warmed up, and with the functions that the batches need."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from model_trainer.errors import ModelFileError, ModelTrainerError
from model_trainer.inference.choose import with_engine
from model_trainer.model_files.load import find_model_file, load_model
from model_trainer.model_files.trained_model import ConcurrentEngine, TrainedModel
from model_trainer.pipeline.image import ImageReader
from model_trainer.serving.jobs import Beside
from model_trainer.serving.options import ServeOptions
from model_trainer.specs import ModelSpec
from model_trainer.storage import files

__all__ = ["FileState", "LoadedModel", "load_for_serving", "state_of"]

VERSION_CHARACTERS = 12

FileState = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that has computed batches of all sizes.

    Attributes:
        trained: the model with its engine.
        version: the first characters of the SHA-256 of its file.
        max_pixels: larger images are not read.
        file_state: `state_of` its path, from before it was loaded.
        concurrent_engine: for several batches at once, each on one core; None if that is not faster.
        seconds: how long it took to load and to warm up.
        seconds_of_batch: how long a batch of one image, and one of `max_batch_size`, took; by size.
    """

    trained: TrainedModel
    version: str
    max_pixels: int
    file_state: FileState
    concurrent_engine: ConcurrentEngine | None = None
    seconds: float = 0.0
    seconds_of_batch: Mapping[int, float] = field(default_factory=dict)

    @functools.cached_property
    def black_image(self) -> np.ndarray:
        """An image of the model's `target_size`."""
        return np.zeros(self.trained.spec.target_size, np.uint8)

    @functools.cached_property
    def _read(self) -> ImageReader:
        return ImageReader(self.trained.spec, self.max_pixels)

    def decode(self, data: bytes) -> np.ndarray:
        """Decodes an image: uint8 `target_size`.

        Raises:
            DataError: it cannot be read; the message is the reason.
        """
        return self._read(data)

    def compute(self, images: np.ndarray) -> np.ndarray:
        """Predicts the class probabilities: float32 `(batch, num_classes)`."""
        return self.trained.probabilities(images)

    @functools.cached_property
    def beside(self) -> Beside | None:
        """What computes several batches at once; None if that is not faster."""
        engine = self.concurrent_engine
        if engine is None:
            return None
        compute = replace(self.trained, engine=engine).probabilities
        return Beside(compute, engine.batch_size, engine.num_calls)

    def attribution(self, data: bytes, class_index: int | None) -> bytes:
        """Draws an attribution map: a PNG; see `Service.attribution`."""
        from model_trainer.serving.attribution import attribution_png

        image = self.decode(data)
        if class_index is None:
            class_index = int(self.compute(image[None])[0].argmax())
        return attribution_png(self._grad_cam, image, class_index)

    @functools.cached_property
    def _grad_cam(self) -> Any:
        from model_trainer.evaluation.attribution import GradCAM

        return GradCAM(self.trained)


def load_for_serving(
    path: str | os.PathLike[str],
    options: ServeOptions,
    *,
    trust: bool = False,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
) -> LoadedModel:
    """Loads a model, chooses its engine, and computes batches of all sizes once.

    Args:
        path, trust, spec, classes: as for `load_model`.
        options: of the endpoint.

    Raises:
        ModelTrainerError: it cannot be loaded, or not be computed.
    """
    start_time = time.monotonic()
    file_state = state_of(path)
    version = _version_of(path)
    trained = load_model(path, trust, spec=spec, classes=classes)
    if options.calibrated:
        trained = trained.calibrated()
    sizes = sorted({1, options.max_batch_size})
    trained = with_engine(trained, options.engine, options.precision, batch_sizes=sizes)
    loaded = LoadedModel(trained, version, options.max_pixels, file_state)
    try:
        engine = trained.engine
        if engine is not None:
            loaded = replace(loaded, concurrent_engine=engine.for_concurrent_calls(options.max_batch_size))
        for size in range(options.max_batch_size, 0, -1):  # the largest first: memory that is too small shows at once
            loaded.compute(np.stack([loaded.black_image] * size))
        if loaded.beside is not None:
            for size in range(loaded.beside.batch_size, 0, -1):
                loaded.beside.compute(np.stack([loaded.black_image] * size))
        seconds_of_batch = {size: _measure(loaded, size) for size in (1, options.max_batch_size)}
        for kind in ("JPEG", "PNG"):
            loaded.decode(_encoded_image(kind))
    except ModelTrainerError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{trained.path} is loaded, but its network cannot be computed: {type(error).__name__}: {error}"
        ) from error
    return replace(loaded, seconds=time.monotonic() - start_time, seconds_of_batch=seconds_of_batch)


def _measure(loaded: LoadedModel, batch_size: int) -> float:
    images = np.stack([loaded.black_image] * batch_size)
    start_time = time.perf_counter()
    loaded.compute(images)
    return time.perf_counter() - start_time


def state_of(path: str | os.PathLike[str]) -> FileState:
    """What changes with the model at `path`; empty if there is none at the moment, or it is not on the local disk."""
    try:
        file = find_model_file(path)
        description = file.with_name("model_spec.json")
        return (str(file), _stat(file), _stat(description) if files.exists(description) else None)
    except (OSError, ModelTrainerError):
        return ()


def _stat(file: os.PathLike[str]) -> FileState:
    info = os.stat(file)
    return info.st_ino, info.st_size, info.st_mtime_ns


def _version_of(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with files.open_file(find_model_file(path)) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:VERSION_CHARACTERS]


def _encoded_image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, kind)
    return file.getvalue()
