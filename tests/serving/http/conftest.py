"""A service without batches or threads, with a real model of 32 × 32 pixels, and clients that call the app directly."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from PIL import Image

from model_trainer import Classification, ModelSpec
from model_trainer.errors import DataError
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.pipeline.image import read_image
from model_trainer.serving.answers import BadImage, Results
from model_trainer.serving.http.app import make_app
from model_trainer.serving.http.metrics import Metrics
from model_trainer.serving.options import ServeOptions


class FakeService:
    """A stand-in for `serving.service.Service` with a real model; requests raise `error` if it is set."""

    def __init__(self, trained: TrainedModel, folder: Path) -> None:
        self.trained: TrainedModel | None = trained
        self.status = "ready"
        self.model_version = "1a2b3c4d"
        self.error: Exception | None = None
        self.received: list[Any] = []
        self.is_hanging = False
        self._file = folder / "image"

    async def probabilities(self, images: Sequence[bytes | np.ndarray]) -> Results:
        if self.error is not None:
            raise self.error
        self.received.append(list(images))
        return Results(self.trained, [self._row(image) for image in images], 0.25, 0.5)

    def _row(self, image: bytes | np.ndarray) -> np.ndarray | BadImage:
        try:
            array = image if isinstance(image, np.ndarray) else self._read(image)
        except DataError as error:
            return BadImage(str(error).removeprefix(f"{self._file} ").removesuffix("."))
        return self.trained.probabilities(array[None])[0]

    def _read(self, data: bytes) -> np.ndarray:
        self._file.write_bytes(data)
        return read_image(self._file, self.trained.spec)

    async def attribution(self, image: bytes, class_index: int | None) -> bytes:
        return b"\x89PNG"

    async def is_healthy(self) -> bool:
        if self.is_hanging:
            await asyncio.Event().wait()
        return self.status == "ready"


@pytest.fixture(scope="session")
def trained() -> TrainedModel:
    keras.utils.set_random_seed(3)
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.AveragePooling2D(8), keras.layers.Flatten()])
    network.add(keras.layers.Dense(7, activation="softmax"))
    spec = ModelSpec(target_size=[32, 32, 3], preprocess_func="between_plus_minus_1")
    classes = ("ape", "bee", "cat", "dög", '"e,l"', "fox", "gnu")
    return TrainedModel(network, spec, Classification(), classes, Path("/srv/secret/model_max_acc.hdf5"))


@pytest.fixture(scope="session")
def make_service(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], FakeService]:
    return lambda: FakeService(trained, tmp_path_factory.mktemp("service"))


@pytest.fixture
def service(make_service: Callable[[], FakeService]) -> FakeService:
    return make_service()


@pytest.fixture
def make_client(service: FakeService) -> Callable[..., Client]:
    def make(**options: Any) -> Client:
        options.setdefault("has_access_log", False)
        metrics = Metrics()
        return Client(make_app(service, ServeOptions(**options), metrics), metrics)

    return make


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


class Client:
    """An HTTP client that calls an app without a network."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    def __call__(self, method: str, path: str, host: str = "localhost:8080", **arguments: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(ask())

    def send(self, content: bytes | str, content_type: str | None = "image/jpeg", **headers: str) -> httpx.Response:
        """Posts a body to `path`, by default /invocations; other keywords are headers with `_` for `-`."""
        path = headers.pop("path", "/invocations")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            named["content-type"] = content_type
        return self("POST", path, content=content, headers=named)

    def send_json(self, value: Any, **headers: str) -> httpx.Response:
        return self.send(json.dumps(value), "application/json", **headers)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Four images of noise, uint8 `(4, 32, 32, 3)`."""
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture(scope="session")
def jpegs(pixels: np.ndarray) -> list[bytes]:
    def encoded(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        return file.getvalue()

    return [encoded(image) for image in pixels]
