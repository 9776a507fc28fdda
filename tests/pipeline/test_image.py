"""Every kind of file against Pillow, eagerly and inside tf.data."""

from __future__ import annotations

import concurrent.futures
import functools
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from model_trainer import ModelSpec, RandomResizedCrop, load_image
from model_trainer.errors import DataError
from model_trainer.pipeline.fallback import map_with_fallback
from model_trainer.pipeline.image import ImageReader, exact_image, fast_image, read_image, read_image_bytes
from model_trainer.pipeline.view import View

pytestmark = pytest.mark.long

HEIGHT, WIDTH = 24, 40
RANDOM = np.random.default_rng(0)


def smooth(height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    """A smooth image, which JPEG hardly changes, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / width, y * 255 / height, (x + y) * 255 / (height + width), 255 - x * 200 / width]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def spec(size: tuple[int, int] = (HEIGHT, WIDTH), channels: int = 3, **options: object) -> ModelSpec:
    return ModelSpec(target_size=[*size, channels], **options)


def eagerly(
    path: Path, wanted: ModelSpec, crop: object = None, seed: tuple[int, int] = (0, 0)
) -> tuple[np.ndarray, bool]:
    view = View(wanted, crop)
    try:
        return fast_image(tf.constant(path.read_bytes()), view, seed=tf.constant(seed)).numpy(), True
    except tf.errors.OpError:
        image, readable = exact_image(tf.constant(path.read_bytes()), view, seed=tf.constant(seed))
        return image.numpy(), bool(readable)


@functools.cache
def compile_reader(spec_json: str, crop: object) -> tf.types.experimental.PolymorphicFunction:
    view = View(ModelSpec.model_validate_json(spec_json), crop)

    @tf.function(autograph=False)
    def one(data: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return map_with_fallback(
            0,
            1,
            lambda n: (fast_image(data, view, seed=seed), True),
            lambda n: exact_image(data, view, seed=seed),
        ).get_single_element()

    return one


def read(path: Path, wanted: ModelSpec, crop: object = None, seed: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, bool]:
    """The image inside tf.data; traced once for each spec, because tracing takes longer than reading."""
    one = compile_reader(wanted.model_dump_json(by_alias=True), crop)
    image, readable = one(tf.constant(path.read_bytes()), tf.constant(seed))
    return image.numpy(), bool(readable)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pillow(path: Path, mode: str | None = None) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode) if mode else image)


def rgb_image() -> Image.Image:
    return Image.fromarray(smooth())


def over(image: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    """The image over a background of one color, by Pillow."""
    image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, (*color, 255)), image).convert("RGB"))


def rgba_image() -> Image.Image:
    pixels = smooth(channels=4)
    pixels[:8, :, 3] = 0
    return Image.fromarray(pixels)


OPAQUE = {
    "rgb.jpg": (rgb_image, {"quality": 90}),
    "progressive.jpg": (rgb_image, {"quality": 90, "progressive": True}),
    "subsampled.jpg": (rgb_image, {"quality": 80, "subsampling": 2}),
    "gray.jpg": (lambda: rgb_image().convert("L"), {}),
    "cmyk.jpg": (lambda: rgb_image().convert("CMYK"), {}),
    "rgb.png": (rgb_image, {}),
    "gray.png": (lambda: rgb_image().convert("L"), {}),
    "palette.png": (lambda: rgb_image().quantize(64), {}),
    "four.png": (lambda: rgb_image().quantize(4), {"bits": 2}),
    "two.png": (lambda: rgb_image().convert("1"), {}),
    "rgb.bmp": (rgb_image, {}),
    "gray.bmp": (lambda: rgb_image().convert("L"), {}),
    "palette.gif": (lambda: rgb_image().quantize(64), {}),
    "rgb.webp": (rgb_image, {"lossless": True}),
    "lossy.webp": (rgb_image, {"quality": 80}),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_pixels_match_pillow(tmp_path: Path, name: str) -> None:
    make, options = OPAQUE[name]
    path = save(tmp_path / name, make(), **options)
    image, readable = read(path, spec())
    assert readable
    np.testing.assert_array_equal(image, pillow(path, "RGB"))


TRANSPARENT = {
    "rgba.png": (rgba_image, {}),
    "gray_alpha.png": (lambda: rgba_image().convert("LA"), {}),
    "palette.png": (lambda: rgb_image().quantize(16), {"transparency": 3}),
    "one_color.png": (rgb_image, {"transparency": tuple(int(v) for v in smooth()[5, 5])}),
    "rgba.webp": (rgba_image, {"lossless": True}),
    "palette.gif": (lambda: rgb_image().quantize(16), {"transparency": 3}),
}


@pytest.mark.parametrize("color", [(255, 255, 255), (10, 200, 90)])
@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_show_the_background(tmp_path: Path, name: str, color: tuple[int, int, int]) -> None:
    make, options = TRANSPARENT[name]
    path = save(tmp_path / name, make(), **options)
    expected = over(Image.fromarray(pillow(path, "RGBA")), color)
    assert not np.array_equal(expected, pillow(path, "RGB"))  # transparency changes the expected image
    image, readable = read(path, spec(background=color))
    assert readable
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1)


def png(width: int, height: int, color_type: int, rows: bytes, depth: int = 16) -> bytes:
    """A PNG file by its specification, because Pillow cannot write 16-bit RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_16_bit_values_are_scaled_not_truncated(tmp_path: Path, color_type: int, channels: int) -> None:
    deep = RANDOM.integers(0, 65536, (6, 5, channels)).astype(np.uint16)
    if channels == 4:
        deep[..., 3] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "deep.png").write_bytes(png(5, 6, color_type, rows))
    expected = np.round(deep / 257.0).astype(np.uint8)
    expected = np.repeat(expected, 3, axis=-1) if channels == 1 else expected[..., :3]
    image, readable = read(tmp_path / "deep.png", spec((6, 5)))
    assert readable
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_rotated_photo_is_decoded_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"turned{suffix}", rgb_image(), exif=exif, **options)
    with Image.open(path) as turned:
        expected = np.asarray(ImageOps.exif_transpose(turned).convert("RGB"))
    image, readable = read(path, spec(expected.shape[:2]))
    assert readable
    np.testing.assert_array_equal(image, expected)


class FixedBox:
    """A crop that always takes the same region."""

    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        return tf.constant([3, 5, 11, 14])


FIXED_BOX = FixedBox()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_of_a_rotated_jpeg_is_the_crop_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.jpg", rgb_image(), exif=exif, quality=95)
    with Image.open(path) as turned:
        whole = np.asarray(ImageOps.exif_transpose(turned))
    image, _ = read(path, spec((11, 14)), crop=FIXED_BOX)
    # At the edges of a region the decoder smooths color without its neighbors.
    np.testing.assert_allclose(image[2:-2, 2:-2].astype(int), whole[3:14, 5:19][2:-2, 2:-2].astype(int), atol=3)


def test_damaged_exif_in_a_jpeg_is_ignored(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", rgb_image(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    image, readable = read(path, spec())
    assert readable
    np.testing.assert_array_equal(image, pillow(path))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_damaged_exif_in_other_formats_is_ignored(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", rgb_image(), exif=b"Exif\0\0no TIFF file", lossless=True)
    image, readable = read(path, spec())
    assert readable
    np.testing.assert_array_equal(image, smooth())


def test_a_png_with_its_orientation_after_the_pixels_is_decoded_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = save(tmp_path / "a.png", rgb_image()).read_bytes()
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = content.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(content[:end] + late + content[end:])
    with Image.open(tmp_path / "late.png") as turned:
        turned.load()
        expected = np.asarray(ImageOps.exif_transpose(turned))
    assert expected.shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(read(tmp_path / "late.png", spec((WIDTH, HEIGHT)))[0], expected)


def test_a_jpeg_with_its_orientation_after_other_metadata_is_decoded_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = save(tmp_path / "a.jpg", rgb_image(), exif=exif).read_bytes()
    filler = b"\xff\xe4" + struct.pack(">H", 60_002) + b"\0" * 60_000
    (tmp_path / "late.jpg").write_bytes(content[:2] + 3 * filler + content[2:])
    with Image.open(tmp_path / "late.jpg") as turned:
        expected = np.asarray(ImageOps.exif_transpose(turned))
    assert expected.shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(read(tmp_path / "late.jpg", spec((WIDTH, HEIGHT)))[0], expected)


def test_formats_that_are_not_supported_are_not_even_tried(tmp_path: Path) -> None:
    for name, content in {"a.ppm": b"P3 1 1 255 1 2 3", "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}.items():
        (tmp_path / name).write_bytes(content)
        assert not read(tmp_path / name, spec())[1]


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "rgb.bmp", "palette.gif", "rgb.webp"])
def test_a_wrong_suffix_is_ignored(tmp_path: Path, name: str) -> None:
    make, options = OPAQUE[name]
    path = save(tmp_path / name, make(), **options)
    wrong = path.rename(tmp_path / ("a.png" if not name.endswith(".png") else "a.jpg"))
    assert read(wrong, spec())[1]


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "lime")]
    for suffix in (".gif", ".webp", ".png"):
        path = save(tmp_path / f"moving{suffix}", frames[0], save_all=True, append_images=frames[1:])
        image, _ = read(path, spec())
        assert image.mean(axis=(0, 1)).round().tolist() == pytest.approx([255, 0, 0], abs=4), suffix


def jpeg_bytes() -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth(200, 200)).save(file, "JPEG", quality=95)
    return file.getvalue()


def bad_files() -> Iterator[tuple[str, bytes, str]]:
    whole = jpeg_bytes()
    file = io.BytesIO()
    rgb_image().save(file, "PNG")
    whole_png = file.getvalue()
    yield "empty", b"", "is empty \\(0 bytes\\)"
    yield "text", b"This is no image.", "is not an image"
    yield "cut_header", whole[:10], "is not an image|is truncated"
    yield "cut_jpeg", whole[: len(whole) // 2], "is truncated"
    yield "cut_png", whole_png[: len(whole_png) // 2], "is truncated"
    yield "noise", RANDOM.bytes(5000), "is not an image"
    yield "jpeg_noise", b"\xff\xd8\xff\xe0" + RANDOM.bytes(5000), "is not an image|is damaged|is truncated"
    yield "png_noise", whole_png[:40] + RANDOM.bytes(400), "is damaged|is truncated|is not an image"
    yield "bomb", png(30_000, 30_000, 0, b"\0", depth=8), "has more than the limit of 178,956,970 pixels"


@pytest.mark.parametrize(
    ("name", "content", "reason"), list(bad_files()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bad_file_is_reported_without_an_exception(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    image, readable = read(path, spec())
    assert not readable
    assert not image.any()
    with pytest.raises(DataError, match=f"bad.jpg ({reason})"):
        read_image(path, spec())


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jpg does not exist."):
        load_image(tmp_path / "none.jpg", spec())


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "rgb.bmp"])
def test_a_gray_model_sees_the_luminance_of_pillow(tmp_path: Path, name: str) -> None:
    make, options = OPAQUE[name]
    path = save(tmp_path / name, make(), **options)
    image, _ = read(path, spec(channels=1))
    np.testing.assert_array_equal(image[..., 0], np.asarray(Image.fromarray(pillow(path, "RGB")).convert("L")))


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "rgb.bmp"])
def test_a_four_channel_model_sees_opaque_images_as_such(tmp_path: Path, name: str) -> None:
    make, options = OPAQUE[name]
    path = save(tmp_path / name, make(), **options)
    image, _ = read(path, spec(channels=4))
    np.testing.assert_array_equal(image, pillow(path, "RGBA"))


@pytest.mark.parametrize("name", ["rgba.png", "rgba.webp"])
def test_a_four_channel_model_sees_alpha(tmp_path: Path, name: str) -> None:
    make, options = TRANSPARENT[name]
    path = save(tmp_path / name, make(), **options)
    np.testing.assert_array_equal(read(path, spec(channels=4))[0], pillow(path))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3"])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_resizing_is_close_to_pillow(tmp_path: Path, resize: str, interpolation: str) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(smooth(60, 100)))
    image, _ = read(path, spec((32, 32), resize=resize, interpolation=interpolation))
    method = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos3": Image.LANCZOS}[interpolation]
    source = Image.fromarray(pillow(path))
    if resize == "crop":
        source = source.crop((20, 0, 80, 60))
    expected = np.asarray(source.resize((32, 32), method)).astype(int)
    np.testing.assert_allclose(image.astype(int), expected, atol=2)


@pytest.mark.parametrize(
    ("size", "bars"), [((60, 100), (slice(0, 6), slice(None))), ((100, 60), (slice(None), slice(0, 6)))]
)
def test_padding_keeps_proportions_and_shows_the_background(
    tmp_path: Path, size: tuple[int, int], bars: tuple[slice, slice]
) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(np.full((*size, 3), 7, np.uint8)))
    image, _ = read(path, spec((32, 32), resize="pad", background=(1, 2, 3)))
    assert (image[bars] == [1, 2, 3]).all()
    assert (image == 7).all(axis=-1).sum() == 32 * 19


def test_an_image_of_the_target_size_is_unchanged(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", rgb_image())
    for resize in ("crop", "squash", "pad"):
        np.testing.assert_array_equal(read(path, spec(resize=resize))[0], smooth())


def test_load_image_returns_the_preprocessed_image_of_the_pipeline(tmp_path: Path) -> None:
    wanted = ModelSpec(target_size=[32, 32, 3], preprocess_func="between_plus_minus_1")
    path = save(tmp_path / "a.jpg", Image.fromarray(smooth(60, 100)))
    loaded = load_image(path, wanted)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, wanted.preprocess(read(path, wanted)[0]))


CROP = RandomResizedCrop()


def test_a_random_crop_is_determined_by_its_seed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(smooth(60, 100)))
    crops = [read(path, spec((32, 32)), crop=CROP, seed=(0, s))[0] for s in (1, 1, 2)]
    np.testing.assert_array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "cmyk.jpg"])
def test_an_image_is_the_same_eagerly_and_in_tf_data(tmp_path: Path, name: str) -> None:
    make, options = OPAQUE[name]
    path = save(tmp_path / name, make(), **options)
    for crop, seed in ((None, (0, 0)), (CROP, (3, 4))):
        image, readable = eagerly(path, spec((16, 16)), crop=crop, seed=seed)
        assert readable
        np.testing.assert_array_equal(image, read(path, spec((16, 16)), crop, seed)[0])


def test_a_bad_file_is_reported_eagerly_too(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    assert not eagerly(tmp_path / "bad.png", spec())[1]


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "rgb.bmp"])
def test_bytes_give_the_pixels_of_the_file(tmp_path: Path, name: str) -> None:
    make, options = OPAQUE[name]
    path = save(tmp_path / name, make(), **options)
    np.testing.assert_array_equal(read_image_bytes(path.read_bytes(), spec()), read_image(path, spec()))


def test_bytes_that_are_not_an_image_are_refused_with_the_reason_only() -> None:
    with pytest.raises(DataError, match=r"^is not an image$"):
        read_image_bytes(b"no image", spec())


def test_several_threads_may_share_one_reader(tmp_path: Path) -> None:
    make, options = OPAQUE["rgb.jpg"]
    path = save(tmp_path / "rgb.jpg", make(), **options)
    images = [path.read_bytes(), b"no image"] * 20
    reader = ImageReader(spec())

    def read_one(data: bytes) -> np.ndarray | str:
        try:
            return reader(data)
        except DataError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        results = list(threads.map(read_one, images))
    assert set(results[1::2]) == {"is not an image"}
    np.testing.assert_array_equal(np.stack(results[::2]), [read_image(path, spec())] * 20)
