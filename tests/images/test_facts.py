from __future__ import annotations

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from model_trainer.images.facts import ImageFacts, image_facts

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
DEEP = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png() -> bytes:
    """30 x 20 pixels in RGB with 16 bits per channel, which Pillow cannot write."""
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes(20 * (1 + 30 * 6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animated(format: str) -> bytes:
    return encoded(RGB, format, save_all=True, append_images=[RGB.rotate(180)])


FILES = {
    "jpeg": (encoded(RGB, "JPEG"), ("JPEG", "RGB", 8, False)),
    "gray jpeg": (encoded(RGB.convert("L"), "JPEG"), ("JPEG", "L", 8, False)),
    "cmyk": (encoded(RGB.convert("CMYK"), "JPEG"), ("JPEG", "CMYK", 8, False)),
    "two pictures of a phone": (animated("MPO"), ("JPEG", "RGB", 8, False)),
    "png": (encoded(RGB, "PNG"), ("PNG", "RGB", 8, False)),
    "two colors": (encoded(RGB.convert("1"), "PNG"), ("PNG", "1", 1, False)),
    "deep png": (deep_png(), ("PNG", "RGB", 16, False)),
    "deep gray png": (encoded(DEEP, "PNG"), ("PNG", "I;16", 16, False)),
    "animated png": (animated("PNG"), ("PNG", "RGB", 8, True)),
    "gif": (encoded(RGB.quantize(9), "GIF"), ("GIF", "P", 8, False)),
    "animated gif": (animated("GIF"), ("GIF", "P", 8, True)),
    "bmp": (encoded(RGB, "BMP"), ("BMP", "RGB", 8, False)),
    "webp": (encoded(RGB, "WEBP"), ("WEBP", "RGB", 8, False)),
    "animated webp": (animated("WEBP"), ("WEBP", "RGB", 8, True)),
    "tiff": (encoded(RGB, "TIFF"), ("TIFF", "RGB", 8, False)),
    "deep tiff": (encoded(DEEP, "TIFF"), ("TIFF", "I;16", 16, False)),
    "pages": (animated("TIFF"), ("TIFF", "RGB", 8, True)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_header_gives_the_facts_of_an_image(name: str) -> None:
    data, (format, mode, bits, is_animated) = FILES[name]
    expected = ImageFacts(format, width=30, height=20, mode=mode, bits=bits, is_animated=is_animated)
    assert image_facts(data) == expected
    assert image_facts(data, decode=lambda image: None) == expected


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "size"), [(3, (30, 20)), (6, (20, 30))])
def test_the_size_is_that_of_the_upright_image(format: str, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    facts = image_facts(encoded(RGB, format, exif=exif))
    assert (facts.width, facts.height, facts.exif_orientation) == (*size, orientation)


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp", "tiff"])
def test_the_header_of_a_truncated_file_is_still_read(name: str) -> None:
    data = FILES[name][0]
    intact, facts = image_facts(data), image_facts(data[: len(data) * 9 // 10])
    assert facts == dataclasses.replace(intact, problem="is truncated", is_truncated=True)


def test_damage_in_a_second_frame_is_ignored() -> None:
    facts = image_facts(FILES["gif"][0].removesuffix(b";") + b",\0\0")
    assert facts.problem == ""
    assert facts.is_animated


def test_damage_after_the_header_is_detected_only_when_pixels_are_decoded() -> None:
    data = FILES["jpeg"][0]
    assert image_facts(data[: len(data) * 9 // 10], decode=lambda image: None).problem == ""


def test_damage_in_the_pixels_of_a_png_is_detected() -> None:
    data = bytearray(FILES["png"][0])
    data[data.index(b"IDAT") + 30] ^= 0xFF
    assert image_facts(bytes(data)).problem.startswith("is damaged")


def test_reading_the_header_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    for name in ("PngImagePlugin.PngImageFile", "JpegImagePlugin.JpegImageFile", "GifImagePlugin.GifImageFile"):
        monkeypatch.setattr(f"PIL.{name}.load", lambda image: loaded.append(image.format))
    for data, _ in FILES.values():
        image_facts(data, decode=lambda image: None)
        image_facts(data, max_pixels=599)
    assert not loaded


def test_a_png_with_its_orientation_after_the_pixels_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = FILES["png"][0]
    end = data.index(b"IEND") - 4
    turned = data[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[end:]
    facts = image_facts(turned)
    assert (facts.width, facts.height, facts.exif_orientation) == (20, 30, 6)


def test_a_bomb_is_reported_with_its_size() -> None:
    facts = image_facts(FILES["png"][0], max_pixels=599)
    assert facts.is_bomb
    assert (facts.width, facts.height) == (30, 20)
    assert facts.problem.startswith("has more than the limit of 599 pixels")
    assert image_facts(FILES["png"][0], max_pixels=600).problem == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ImageFacts(problem="is empty (0 bytes)")),
        (b"This is a text.", ImageFacts(problem="is not an image")),
        (b"\xff\xd8\xff\xe0", ImageFacts("JPEG", problem="is truncated", is_truncated=True)),
        (b"BM" + b"\0" * 60, ImageFacts("BMP", problem="is damaged (Unsupported BMP header type (0))")),
    ],
)
def test_a_file_that_is_not_an_image_has_a_problem(data: bytes, expected: ImageFacts) -> None:
    assert image_facts(data) == expected
