"""Loads a model for an endpoint: with its engine, warmed up, and with the functions that the batches need."""

from __future__ import annotations

import functools
import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from model_trainer.errors import ModelFileError, ModelTrainerError
from model_trainer.inference.choose import for_concurrent_calls, with_engine
from model_trainer.inference.precision_check import hash_of
from model_trainer.model_files.load import find_model_file, load_model
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.pipeline.image import ImageReader
from model_trainer.serving.jobs import ConcurrentCompute
from model_trainer.serving.options import ServeOptions
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.storage.manifest import MANIFEST
from model_trainer.storage.read import state_of_file

__all__ = ["FileState", "LoadedModel", "load_for_serving", "state_of"]

VERSION_CHARACTERS = 12

FileState = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is warmed up: it has computed batches of all sizes.

    Attributes:
        trained: the model with its engine.
        version: the first characters of the SHA-256 of its file.
        max_pixels: larger images are not read.
        file_state: `state_of` its path, from before it was loaded.
        batch_size: maximum number of images per batch; that of `concurrent` if there is one.
        beside: computes several batches at once, each on one core; None if that is not faster.
        seconds: how long it took to load and to warm up.
        seconds_of_image: how long a single image takes.
        images_per_second: throughput with full batches.
    """

    trained: TrainedModel
    version: str
    max_pixels: int
    file_state: FileState
    batch_size: int
    concurrent: ConcurrentCompute | None = None
    seconds: float = 0.0
    seconds_of_image: float = 0.0
    images_per_second: float = 0.0

    @functools.cached_property
    def black_image(self) -> np.ndarray:
        """A black image, uint8 `target_size`."""
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
        ModelTrainerError: the model cannot be loaded or computed.
    """
    start_time = time.monotonic()
    file_state = state_of(path)
    version = hash_of(find_model_file(path))[:VERSION_CHARACTERS]
    trained = load_model(path, trust, spec=spec, classes=classes)
    if options.calibrated:
        trained = trained.calibrated()
    sizes = sorted({1, options.max_batch_size})
    trained = with_engine(trained, options.engine, options.precision, batch_sizes=sizes)
    loaded = LoadedModel(trained, version, options.max_pixels, file_state, options.max_batch_size)
    try:
        engine = for_concurrent_calls(trained.engine, options.max_batch_size)
        if engine is not None:  # the other engine is not needed any longer, and its weights are freed
            trained = replace(trained, engine=engine)
            alone = replace(trained, engine=engine.alone).probabilities
            concurrent = ConcurrentCompute(trained.probabilities, alone, engine.batch_size, engine.num_calls)
            loaded = replace(loaded, trained=trained, batch_size=concurrent.batch_size, concurrent=concurrent)
        for size in range(loaded.batch_size, 0, -1):  # the largest first: a lack of memory shows at once
            loaded.compute(np.stack([loaded.black_image] * size))
        if loaded.concurrent is not None:
            loaded.concurrent.alone(loaded.black_image[None])
        for kind in ("JPEG", "PNG"):
            loaded.decode(_encoded_image(kind))
    except ModelTrainerError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{trained.path} is loaded, but its network cannot be computed: {type(error).__name__}: {error}"
        ) from error
    loaded = replace(loaded, seconds_of_image=_seconds_of_image(loaded), images_per_second=_throughput(loaded))
    return replace(loaded, seconds=time.monotonic() - start_time)


def _seconds_of_image(loaded: LoadedModel) -> float:
    """How long a single image takes: the shortest of three times."""
    compute = loaded.concurrent.alone if loaded.concurrent else loaded.compute
    seconds = []
    for _ in range(3):
        start_time = time.perf_counter()
        compute(loaded.black_image[None])
        seconds.append(time.perf_counter() - start_time)
    return min(seconds)


def _throughput(loaded: LoadedModel) -> float:
    """Images per second with full batches."""
    num_calls = loaded.concurrent.num_batches if loaded.concurrent else 1
    images = [np.stack([loaded.black_image] * loaded.batch_size)] * (2 * num_calls)
    start_time = time.perf_counter()
    with ThreadPoolExecutor(num_calls) as threads:
        list(threads.map(loaded.compute, images))
    return len(images) * loaded.batch_size / (time.perf_counter() - start_time)


def state_of(path: str | os.PathLike[str]) -> FileState:
    """A value that differs when the model at `path` has changed; empty if there is none at the moment."""
    try:
        file = find_model_file(path)
        companions = [file.with_name(name) for name in ("model_spec.json", MANIFEST)]
        if "://" in str(file):  # other storages have no inodes
            return (str(file), *(files.info(each) for each in (file, *companions)))
        return (str(file), *(state_of_file(each) if files.exists(each) else None for each in (file, *companions)))
    except (OSError, ModelTrainerError):
        return ()


def _encoded_image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, kind)
    return file.getvalue()
