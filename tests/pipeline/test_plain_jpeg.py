"""The fast reader of plain JPEGs gives the same pixels as the general one, or None."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer import ModelSpec
from model_trainer.pipeline.image import fast_image
from model_trainer.pipeline.plain_jpeg import PlainJpegReader
from model_trainer.pipeline.view import View

SPEC = ModelSpec(target_size=[32, 40, 3])


def encode(height: int, width: int, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    random = np.random.default_rng([height, width])
    file = io.BytesIO()
    pixels = random.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), np.uint8)
    Image.fromarray(pixels).resize((width, height)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def expected(data: bytes, spec: ModelSpec) -> np.ndarray:
    image: np.ndarray = fast_image(tf.constant(data), View(spec)).numpy()
    return image


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((33, 47), {}),
        ((63, 79), {"subsampling": 0}),
        ((64, 80), {"subsampling": 1, "quality": 95}),
        ((40, 77), {"subsampling": 2, "quality": 40}),
        ((17, 13), {"progressive": True}),
        ((59, 50), {"mode": "L"}),
        ((32, 40), {"optimize": True}),
    ],
)
def test_a_plain_jpeg_gives_the_pixels_of_the_general_reader(
    size: tuple[int, int], options: dict[str, Any], resize: str
) -> None:
    spec = SPEC.changed("resize", resize)
    data = encode(*size, **options)
    image = PlainJpegReader(spec)(data)
    assert image is not None
    np.testing.assert_array_equal(image, expected(data, spec))


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6
    return tags


@pytest.mark.parametrize(
    "data",
    [
        encode(40, 40, "PNG"),
        encode(40, 40, exif=exif()),
        encode(40, 40, mode="CMYK"),
        encode(90, 90),  # shrunk by more than half: with antialiasing
        encode(40, 40)[:400],
        b"",
        b"\xff\xd8\xff\xdb",
    ],
    ids=["PNG", "rotated", "CMYK", "large", "truncated", "empty", "no image"],
)
def test_other_images_are_left_to_the_general_reader(data: bytes) -> None:
    assert PlainJpegReader(SPEC)(data) is None


@pytest.mark.parametrize(
    "change",
    [("resize", "pad"), ("interpolation", "bicubic"), ("target_size", (32, 32, 1)), ("target_size", (32, 32, 4))],
)
def test_other_specs_are_left_to_the_general_reader(change: tuple[str, Any]) -> None:
    assert PlainJpegReader(SPEC.changed(*change))(encode(40, 40)) is None
