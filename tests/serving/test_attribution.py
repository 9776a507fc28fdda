"""Attribution maps for clients: the picture, and the route that serves it."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request

from model_trainer import Classification, ModelSpec
from model_trainer.errors import DataError
from model_trainer.evaluation.attribution import GradCAM, NoFeatureMap, overlay
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.attribution import attribution_png
from model_trainer.serving.http.attribution import attribution

SPEC = ModelSpec(target_size=[16, 24, 3])


@pytest.fixture(scope="module")
def cam() -> GradCAM:
    """Explains a network whose classes are the mean brightness of the red and of the green channel."""
    images = keras.Input((16, 24, 3))
    features = keras.layers.Conv2D(2, 1, use_bias=False, name="colors")(images)
    output = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(images, output)
    model.get_layer("colors").set_weights([np.array([[[[1, 0], [0, 1], [0, 0]]]], np.float32)])
    return GradCAM(TrainedModel(model, SPEC, Classification(), ("red", "green"), Path("model.hdf5")))


def image_with_a_red_corner() -> np.ndarray:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :12, 0] = 200
    return image


def test_a_small_image_is_enlarged_with_its_aspect_ratio(cam: GradCAM) -> None:
    with Image.open(io.BytesIO(attribution_png(cam, image_with_a_red_corner(), 0))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (448, 299))


def test_regions_that_support_the_class_are_brighter_than_the_image(cam: GradCAM) -> None:
    with Image.open(io.BytesIO(attribution_png(cam, image_with_a_red_corner(), 0))) as picture:
        pixels = np.asarray(picture)
    # The bright end of the color map contains green, and the image does not.
    assert pixels[20:120, 20:200, 1].mean() > 100
    assert pixels[180:, 260:].max() < 30


def test_a_large_image_keeps_its_size() -> None:
    class Cam:
        def __call__(self, images: np.ndarray, class_indices: np.ndarray) -> np.ndarray:
            return np.full((1, 2, 2), class_indices[0] / 2, np.float32)

    image = np.full((500, 400, 3), 128, np.uint8)
    with Image.open(io.BytesIO(attribution_png(Cam(), image, 1))) as picture:  # type: ignore[arg-type]
        np.testing.assert_array_equal(picture, overlay(image, np.full((2, 2), 0.5)))


class FakeService:
    """A service with two classes; its "picture" is the image followed by the class index."""

    trained = TrainedModel(None, SPEC, Classification(), ("red", "green"), Path("model.hdf5"))

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def attribution(self, image: bytes, class_index: int | None) -> bytes:
        if self.error:
            raise self.error
        return f"{image.decode()} {class_index}".encode()


def ask(service: Any, query: str, content_type: str = "image/png") -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"image", "more_body": False}

    headers = [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query.encode(), "headers": headers}
    return asyncio.run(attribution(Request(scope, receive), service))


@pytest.mark.parametrize(
    ("query", "expected"), [("label=green", b"image 1"), ("label=red", b"image 0"), ("", b"image None")]
)
def test_the_label_in_the_query_is_explained(query: str, expected: bytes) -> None:
    response = ask(FakeService(), query)
    assert (response.body, response.media_type) == (expected, "image/png")


@pytest.mark.parametrize(
    ("service", "query", "content_type", "status", "reason"),
    [
        (FakeService(), "label=blue", "image/png", 400, "'blue' is not a label of this model"),
        (FakeService(), "label=red", "application/json", 415, "got 'application/json'"),
        (FakeService(DataError("is not an image")), "label=red", "image/png", 400, "read: it is not an image."),
        (FakeService(NoFeatureMap("flat has no maps.")), "label=red", "image/png", 501, "flat has no maps."),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_explained_is_refused_with_the_reason(
    service: FakeService, query: str, content_type: str, status: int, reason: str
) -> None:
    with pytest.raises(HTTPException) as error:
        ask(service, query, content_type)
    assert error.value.status_code == status
    assert reason in error.value.detail
