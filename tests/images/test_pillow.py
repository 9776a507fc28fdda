"""The conversion after Pillow's decoding: strips, orientation, transparency, and gray images of 16 bits or floats."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from model_trainer import ModelSpec
from model_trainer.images import pillow
from model_trainer.images.facts import image_facts
from model_trainer.images.pillow import decode_with_pillow, why_unreadable
from model_trainer.images.png_chunks import without_ancillary_chunks
from model_trainer.pipeline.image import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 31, 4), np.uint8)
RGBA = Image.fromarray(PIXELS)
COLOR = (10, 200, 90)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(params=[2**20, 100], ids=["whole", "in strips"])
def _strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "_STRIP_PIXELS", request.param)


FILES = {
    "rgb": (RGBA.convert("RGB"), "BMP", {}),
    "gray": (RGBA.convert("L"), "PNG", {}),
    "two colors": (RGBA.convert("1"), "PNG", {}),
    "cmyk": (RGBA.convert("CMYK"), "JPEG", {}),
    "palette": (RGBA.convert("RGB").quantize(16), "GIF", {}),
    "palette with alpha": (RGBA.convert("RGB").quantize(16), "PNG", {"transparency": 3}),
    "alpha": (RGBA, "WEBP", {"lossless": True, "exact": True}),
    "gray with alpha": (RGBA.convert("LA"), "PNG", {}),
    "tiff": (RGBA.convert("RGB"), "TIFF", {"compression": "tiff_lzw"}),
}


@pytest.mark.usefixtures("_strips")
@pytest.mark.parametrize("name", FILES)
def test_pixels_match_pillow(name: str) -> None:
    image, format, options = FILES[name]
    data = encoded(image, format, **options)
    expected = Image.open(io.BytesIO(data)).convert("RGBA")
    np.testing.assert_array_equal(decode_with_pillow(data, COLOR, with_alpha=True), np.asarray(expected))
    over = Image.alpha_composite(Image.new("RGBA", expected.size, (*COLOR, 255)), expected).convert("RGB")
    decoded = decode_with_pillow(data, COLOR, with_alpha=False)
    np.testing.assert_allclose(decoded.astype(int), np.asarray(over).astype(int), atol=1)


def test_blending_with_the_background_rounds_to_the_nearest() -> None:
    data = encoded(RGBA, "PNG")
    alpha = PIXELS[..., 3:] / 255.0
    expected = np.round(PIXELS[..., :3] * alpha + np.array(COLOR) * (1 - alpha))
    np.testing.assert_array_equal(decode_with_pillow(data, COLOR, with_alpha=False), expected)


@pytest.mark.usefixtures("_strips")
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_image_is_decoded_upright(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGBA.convert("RGB"), format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_with_pillow(data, COLOR, with_alpha=False), expected)


@pytest.mark.usefixtures("_strips")
def test_grays_of_16_bits_are_scaled() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (23, 31)).astype(np.uint16)
    decoded = decode_with_pillow(encoded(Image.fromarray(deep), "TIFF"), COLOR, with_alpha=False)
    np.testing.assert_array_equal(decoded, np.repeat(np.round(deep / 257.0)[..., None], 3, axis=-1))


def test_nan_and_infinite_grays_are_black_or_white() -> None:
    floats = np.array([[np.nan, np.inf, -np.inf, 7.0, -1.0, 300.0]], np.float32)
    decoded = decode_with_pillow(encoded(Image.fromarray(floats), "TIFF"), COLOR, with_alpha=False)
    assert decoded[0, :, 0].tolist() == [0, 255, 0, 7, 0, 255]


def test_the_orientation_in_huge_metadata_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 2**23
    data = encoded(RGBA.convert("RGB"), "WEBP", exif=exif, lossless=True)
    assert decode_with_pillow(data, COLOR, with_alpha=False).shape == (23, 31, 3)


def test_any_exception_of_pillow_becomes_a_reason_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, reason in {
        ValueError("two\nlines " + "x" * 500): "is damaged (two lines " + "x" * 110 + "...)",
        RecursionError(): "is damaged (RecursionError)",
        OSError("\x00\x1b[31m"): "is damaged (OSError)",
        MemoryError(): "needs more memory than there is",
        IndexError("index out of range"): "is truncated",
    }.items():

        def fail(image: Image.Image, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
        assert why_unreadable(encoded(RGBA, "PNG")) == reason


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


# Chunks for which Pillow refuses a PNG whose pixels are intact.
DAMAGED = {
    "profile of an unknown compression": chunk(b"iCCP", b"name\0\7" + zlib.compress(b"profile")),
    "text that fills the memory": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21))),
    "frame without its header": chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fdAT", bytes(8)),
    "wrong checksum": chunk(b"tEXt", b"Comment\0words", crc=1),
    "transparency with a wrong checksum": chunk(b"tRNS", bytes(6), crc=1),
}


def with_chunk(data: bytes, extra: bytes, *, at_end: bool = False) -> bytes:
    offset = data.index(b"IEND" if at_end else b"IDAT") - 4
    return data[:offset] + extra + data[offset:]


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_png_with_a_damaged_ancillary_chunk_is_read(name: str, at_end: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    intact = encoded(RGBA.convert("RGB"), "PNG", exif=exif)
    damaged = with_chunk(intact, DAMAGED[name], at_end=at_end)
    expected = decode_with_pillow(intact, COLOR, with_alpha=False)
    assert expected is not None
    np.testing.assert_array_equal(decode_with_pillow(damaged, COLOR, with_alpha=False), expected)
    facts = image_facts(damaged)
    assert (facts.problem, facts.width, facts.height, facts.exif_orientation) == ("", 23, 31, 6)


@pytest.mark.parametrize("name", DAMAGED)
def test_training_and_doctor_agree_about_pngs_with_damaged_chunks(name: str, tmp_path: Path) -> None:
    data = with_chunk(encoded(RGBA.convert("RGB"), "PNG"), DAMAGED[name])
    (tmp_path / "a.png").write_bytes(data)
    spec = ModelSpec(target_size=(23, 31, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", spec), PIXELS[..., :3])
    assert image_facts(data).problem == ""


def test_a_png_with_damaged_pixels_stays_unreadable() -> None:
    data = with_chunk(encoded(RGBA, "PNG"), DAMAGED["wrong checksum"])
    offset = data.index(b"IDAT")
    assert "damaged" in why_unreadable(data[: offset + 4] + b"\0\0\0\0" + data[offset + 8 :])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_avif_is_decoded_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGBA.convert("RGB"), "AVIF", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_with_pillow(data, COLOR, with_alpha=False), expected)
    facts = image_facts(data)
    assert (facts.height, facts.width, facts.format, facts.problem) == (*expected.shape[:2], "AVIF", "")


def test_an_avif_that_this_pillow_cannot_read_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(RGBA.convert("RGB"), "AVIF")
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    assert why_unreadable(data) == "is an AVIF image, and Pillow is installed without AVIF"


def test_a_png_read_without_its_damaged_chunks_keeps_the_orientation_in_its_texts() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    xmp += b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    intact = with_chunk(encoded(RGBA.convert("RGB"), "PNG"), text)
    expected = decode_with_pillow(intact, COLOR, with_alpha=False)
    assert expected is not None
    assert expected.shape == (31, 23, 3)
    for name in DAMAGED:
        decoded = decode_with_pillow(with_chunk(intact, DAMAGED[name]), COLOR, with_alpha=False)
        np.testing.assert_array_equal(decoded, expected)


def test_bytes_after_the_end_of_a_png_are_ignored() -> None:
    data = with_chunk(encoded(RGBA, "PNG"), DAMAGED["wrong checksum"])
    plain = without_ancillary_chunks(data + chunk(b"IDAT", b"more") * 10, with_texts=True)
    assert plain == encoded(RGBA, "PNG")
    assert without_ancillary_chunks(plain, with_texts=False) == b""
