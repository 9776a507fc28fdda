"""Truncated, mutated and random files, devices and pipes: each gives an image or a reason."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import random
import re
import struct
import threading
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer import ModelSpec
from model_trainer.errors import ConfigError, DataError
from model_trainer.images import decode, limits, pillow
from model_trainer.images.pillow import decode_with_pillow, why_unreadable
from model_trainer.pipeline.image import fast_image, read_image
from model_trainer.pipeline.view import View

SPEC = ModelSpec(target_size=[8, 8, 3])
WHITE = (255, 255, 255)
SENTENCE = re.compile(r"(is|has|needs|could) [^\n]{4,200}")


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@functools.cache
def noise(side: int, channels: int = 3) -> Image.Image:
    """An image of noise, which no format compresses well."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8))


MAKERS = {
    "jpeg": lambda side: encoded(noise(side), "JPEG", quality=95),
    "progressive": lambda side: encoded(noise(side), "JPEG", quality=95, progressive=True),
    "png": lambda side: encoded(noise(side), "PNG"),
    "png_alpha": lambda side: encoded(noise(side, 4), "PNG"),
    "gif": lambda side: encoded(noise(side).quantize(64), "GIF"),
    "bmp": lambda side: encoded(noise(side), "BMP"),
    "webp": lambda side: encoded(noise(side), "WEBP", quality=90),
    "webp_alpha": lambda side: encoded(noise(side, 4), "WEBP", lossless=True),
    "tiff": lambda side: encoded(noise(side), "TIFF", compression="tiff_lzw"),
}


@pytest.fixture
def read(tmp_path: Path) -> object:
    """Reads bytes as prediction does, by both paths: returns the image, or the reason why it is unreadable."""
    path = tmp_path / "x.jpg"

    def read_bytes(data: bytes) -> np.ndarray | str:
        path.write_bytes(data)
        try:
            image = read_image(path, SPEC)
        except DataError as error:
            return str(error).removeprefix(f"{path} ").removesuffix(".")
        assert image.dtype == np.uint8
        assert image.shape == (8, 8, 3)
        return image

    return read_bytes


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_cut_at_any_kilobyte_is_reported_as_truncated(read, name: str) -> None:
    intact = MAKERS[name](64)
    assert isinstance(read(intact), np.ndarray)
    assert len(intact) > 3 * 1024
    for size in range(1024, len(intact), 1024):
        assert why_unreadable(intact[:size]) == "is truncated", size
        assert read(intact[:size]) == "is truncated", size


STARTS = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\0\1\0\0WEBPVP8 ", b"II*\0\b\0\0\0"]


@pytest.mark.parametrize("start", STARTS)
def test_random_bytes_are_not_an_image(read, start: bytes) -> None:
    source = random.Random(1)
    for size in (0, 1, 2, 5, 9, 20, 300, 5000):
        data = start + source.randbytes(size)
        assert SENTENCE.fullmatch(why_unreadable(data)), data[:20]
        assert isinstance(read(data), str), data[:20]


def test_a_png_with_an_incomplete_header_is_reported(read) -> None:
    for size in range(8, 33):  # TensorFlow puts such bytes into its message, where Python cannot read them
        assert read(MAKERS["png"](8)[:size]) == "is truncated"


def mutated(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 5, 20])):
        changed = changed or bytearray(b"-")
        offset = source.randrange(min(len(changed), source.choice([40, 200, 10**6])))
        kind = source.randrange(6)
        if kind == 0:
            changed[offset] ^= 1 << source.randrange(8)
        elif kind == 1:
            changed[offset] = source.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            changed[offset : offset + 4] = struct.pack(
                source.choice("<>") + "I", source.choice([0, 1, 300, 2**31, 2**32 - 1])
            )
        elif kind == 3:
            del changed[offset : offset + source.choice([1, 4, 50])]
        elif kind == 4:
            changed[offset:offset] = changed[: source.choice([1, 4, 50])]
        else:
            changed = changed[: max(offset, 1)]
    return with_correct_checksums(bytes(changed)) if changed.startswith(b"\x89PNG") else bytes(changed)


def with_correct_checksums(png: bytes) -> bytes:
    """Corrects the checksums of a PNG, at which most mutations would be detected otherwise."""
    chunks, offset = [png[:8]], 8
    while offset + 12 <= len(png):
        size = 8 + int.from_bytes(png[offset : offset + 4])
        chunks.append(png[offset : offset + size] + struct.pack(">I", zlib.crc32(png[offset + 4 : offset + size])))
        offset += size + 4
    return b"".join(chunks)


@pytest.mark.parametrize("name", MAKERS)
def test_a_mutated_file_is_an_image_or_has_a_reason(read, name: str) -> None:
    source = random.Random(name)
    intact = MAKERS[name](24)
    num_images = 0
    for number in range(60):
        data = mutated(intact, source)
        pixels = decode_with_pillow(data, WHITE, with_alpha=number % 2 == 0)
        if pixels is None:
            assert SENTENCE.fullmatch(why_unreadable(data)), number
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == (4 if number % 2 == 0 else 3)
        result = read(data)
        assert isinstance(result, np.ndarray) or SENTENCE.fullmatch(result), number
        num_images += isinstance(result, np.ndarray)
    assert num_images < 60


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_the_fast_path_leaves_large_images_to_pillow(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(decode, "LARGE_PIXELS", 2 * 24 * 24)
    monkeypatch.setattr(decode, "_graph_of", functools.cache(decode._graph_of.__wrapped__))  # with that limit in it
    fast_image(tf.constant(MAKERS[name](24)), View(SPEC))
    with pytest.raises(tf.errors.InvalidArgumentError):
        fast_image(tf.constant(MAKERS[name](35)), View(SPEC))


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "LARGE_PIXELS", 30 * 30)
    small, large = (
        threading.Thread(target=decode_with_pillow, args=(MAKERS["png"](side), WHITE, False), daemon=True)
        for side in (30, 31)
    )
    with pillow._one_at_a_time:
        small.start()
        large.start()
        small.join(60)
        large.join(0.1)
        assert not small.is_alive()
        assert large.is_alive()
    large.join(60)
    assert not large.is_alive()


def limits_with(monkeypatch: pytest.MonkeyPatch, value: str) -> types.ModuleType:
    monkeypatch.setenv("MODEL_TRAINER_MAX_PIXELS", value)
    spec = importlib.util.spec_from_file_location("limits_again", limits.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_with(monkeypatch, "1000").MAX_PIXELS == 1000
    assert decode_with_pillow(MAKERS["png"](2), WHITE, False, max_pixels=4) is not None
    assert decode_with_pillow(MAKERS["png"](2), WHITE, False, max_pixels=3) is None
    assert why_unreadable(MAKERS["png"](2), max_pixels=3).startswith("has more than the limit of 3 pixels")


@pytest.mark.parametrize("value", ["many", "", "0", "-5", "1.5"])
def test_a_limit_that_is_not_a_number_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(
        ConfigError, match=f"`MODEL_TRAINER_MAX_PIXELS` is '{value}'; expected an integer above 0, in pixels"
    ):
        limits_with(monkeypatch, value)


def test_reading_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="could not be opened"):
        read_image(tmp_path / "pipe.jpg", SPEC)


def test_an_endless_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="could not be opened"):
        read_image(tmp_path / "zero.jpg", SPEC)


def test_a_folder_with_the_name_of_an_image_is_reported(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match="could not be opened"):
        read_image(tmp_path / "folder.jpg", SPEC)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 3 * 2**30)  # without content: takes no room on the disk
    with pytest.raises(DataError, match="could not be opened"):
        read_image(tmp_path / "huge.jpg", SPEC)
