"""From a file's bytes to pixels, in two ways: a fast one for ordinary JPEG and PNG, and an exact one for all images.

The fast one runs in TensorFlow's own threads, and decodes only the wanted part of a JPEG. Ordinary is a JPEG with 1 or
3 components, or a PNG, neither of them large. What is not, and what fails there, raises
`tf.errors.InvalidArgumentError`; it is the exact way's then, which is Pillow's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from model_trainer.images.limits import LARGE_PIXELS, MAX_PIXELS, MAX_SCANS
from model_trainer.images.pillow import Unreadable, decode_with_pillow, opened, orientation_of

__all__ = ["Header", "PixelFormat", "decode", "decode_exact", "read_header"]

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD_BYTES = 262_144  # where a JPEG says how it is turned; searching all of a large one costs a tenth of decoding it


class Header(NamedTuple):
    """What the first bytes of an ordinary image say, and the image.

    Attributes:
        data: string `()`, all bytes.
        is_jpeg: bool `()`; otherwise it is a PNG.
        height, width: int32 `()`, of the upright image.
        orientation: int32 `()`, 1 to 8: how the image must be turned, as EXIF counts.
    """

    data: tf.Tensor
    is_jpeg: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    orientation: tf.Tensor


class PixelFormat(NamedTuple):
    """How pixels are wanted.

    Attributes:
        num_channels: 3 for RGB, 4 for RGB and alpha.
        background: what shines through where an image is transparent, with 3 channels.
    """

    num_channels: int = 3
    background: tuple[int, int, int] = (255, 255, 255)


def read_header(data: tf.Tensor) -> Header:
    """The header of an ordinary image; `data` is a string `()`.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, for any other image.
    """
    return Header(*_graph_of(_read_header)(data))


def decode(header: Header, region: tf.Tensor, pixels: PixelFormat) -> tf.Tensor:
    """uint8 `(height, width, num_channels)`: a part of an ordinary image.

    Args:
        region: int32 `(4,)`: top, left, height and width of the part, in pixels of the upright image.
    """
    return tf.ensure_shape(_graph_of(_decode, pixels)(header, region), (None, None, pixels.num_channels))


def decode_exact(data: tf.Tensor, pixels: PixelFormat) -> tuple[tf.Tensor, tf.Tensor]:
    """`(image, readable)` of any bytes, by Pillow; nothing that they hold raises.

    Returns:
        image: uint8 `(height, width, num_channels)`, upright; one pixel of 0 if unreadable.
        readable: bool `()`.
    """

    def with_pillow(raw: bytes | np.ndarray) -> tuple[np.ndarray, np.bool_]:
        image = decode_with_pillow(_plain_bytes(raw), pixels.background, with_alpha=pixels.num_channels == 4)
        if image is None:
            return np.zeros((1, 1, pixels.num_channels), np.uint8), np.bool_(False)
        return image, np.bool_(True)

    image, readable = tf.numpy_function(with_pillow, [data], (tf.uint8, tf.bool))
    readable.set_shape(())
    return tf.ensure_shape(image, (None, None, pixels.num_channels)), readable


@functools.cache
def _graph_of(function: Callable[..., Any], *options: Any) -> Any:
    """`function(*inputs, *options)` as a graph that all pipelines of the process share: to trace it takes 0.1 s."""
    return tf.function(lambda *inputs: function(*inputs, *options), autograph=False, reduce_retracing=False)


def _read_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    is_jpeg = _is_jpeg(data)
    with tf.control_dependencies([tf.debugging.Assert(is_jpeg | _is_plain_png(data), ["kind"])]):
        data = tf.identity(data)
    data, height, width, orientation = tf.cond(is_jpeg, lambda: _jpeg_header(data), lambda: _png_header(data))
    return data, is_jpeg, height, width, orientation


def _is_plain_png(data: tf.Tensor) -> tf.Tensor:
    is_png = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    # Any of these chunks may turn a PNG, also behind its pixels; that is rare enough for Pillow.
    return tf.cond(is_png, lambda: ~_has(data, "eXIf|Raw profile type|XML:com.adobe.xmp"), lambda: False)


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    raw_height, raw_width, components = tf.unstack(tf.image.extract_jpeg_shape(data))
    is_ours = (components != 4) & _is_small(raw_height, raw_width, LARGE_PIXELS) & _has_few_scans(data)
    with tf.control_dependencies([tf.debugging.Assert(is_ours, ["CMYK, large or many scans"])]):
        data, orientation = tf.identity(data), _orientation(data)
    turned = orientation >= 5
    return data, tf.where(turned, raw_width, raw_height), tf.where(turned, raw_height, raw_width), orientation


def _png_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    # Checked first, because the error for a place behind the end shows the bytes, and Python stumbles over them.
    with tf.control_dependencies([tf.debugging.Assert(tf.strings.length(data) >= 25, ["truncated"])]):
        data = tf.identity(data)
    sizes = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
    width, height = sizes[0], sizes[1]
    # Of fewer bits TensorFlow makes wrong greys (254 for black in a two-colour PNG); those are Pillow's. A PNG is
    # decoded whole, and with alpha takes up to 22 bytes for each pixel.
    is_ours = (_bits_of_png(data) >= 8) & _is_small(height, width, LARGE_PIXELS // 2)
    with tf.control_dependencies([tf.debugging.Assert(is_ours, ["few bits or large"])]):
        return tf.identity(data), height, width, tf.constant(1)


def _bits_of_png(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(data, 24, 1), tf.uint8)[0]


def _decode(header: Header, region: tf.Tensor, pixels: PixelFormat) -> tf.Tensor:
    return tf.cond(header.is_jpeg, lambda: _jpeg(header, region, pixels), lambda: _png(header.data, region, pixels))


def _jpeg(header: Header, region: tf.Tensor, wanted: PixelFormat) -> tf.Tensor:
    raw_region = _in_raw_frame(region, header.height, header.width, header.orientation)
    # Accurate, as Pillow decodes; TensorFlow's default is a faster approximation.
    image = tf.image.decode_and_crop_jpeg(header.data, raw_region, channels=3, dct_method="INTEGER_ACCURATE")
    image = _upright(image, header.orientation)
    if wanted.num_channels == 3:
        return image
    return tf.concat([image, tf.fill(tf.concat([tf.shape(image)[:2], [1]], 0), tf.constant(255, tf.uint8))], -1)


def _png(data: tf.Tensor, region: tf.Tensor, wanted: PixelFormat) -> tf.Tensor:
    is_16_bit = _bits_of_png(data) == 16
    rgba = tf.cond(is_16_bit, lambda: _png_16_bit(data), lambda: tf.io.decode_png(data, channels=4))
    top, left, height, width = tf.unstack(region)
    rgba = rgba[top : top + height, left : left + width]
    if wanted.num_channels == 4:
        return rgba
    opaque = tf.reduce_min(rgba[..., 3]) == 255
    return tf.cond(opaque, lambda: rgba[..., :3], lambda: _composite(rgba, wanted.background))


def _png_16_bit(data: tf.Tensor) -> tf.Tensor:
    deep = tf.cast(tf.io.decode_png(data, channels=4, dtype=tf.uint16), tf.float32)
    return tf.cast(tf.round(deep / 257.0), tf.uint8)


def _composite(rgba: tf.Tensor, background: tuple[int, int, int]) -> tf.Tensor:
    pixels, alpha = tf.cast(rgba[..., :3], tf.uint16), tf.cast(rgba[..., 3:], tf.uint16)
    over = pixels * alpha + tf.constant(background, tf.uint16) * (255 - alpha) + 128
    # Divided by 255 and rounded, without leaving 16 bits: half the memory of float32.
    return tf.cast(tf.bitwise.right_shift(over + tf.bitwise.right_shift(over, 8), 8), tf.uint8)


def _is_jpeg(data: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(data, 0, len(_JPEG)) == _JPEG


def _has(data: tf.Tensor, texts: str) -> tf.Tensor:
    # \C is any one byte; a dot would stop at bytes that are no UTF-8.
    return tf.strings.regex_full_match(data, rf"\C*({texts})\C*")


def _is_small(height: tf.Tensor, width: tf.Tensor, limit: int) -> tf.Tensor:
    num_pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return (height > 0) & (width > 0) & (num_pixels <= min(limit, MAX_PIXELS))


def _has_few_scans(data: tf.Tensor) -> tf.Tensor:
    # Counts the two bytes that begin a scan; inside of its pixels they never stand together.
    parts = tf.raw_ops.StringSplitV2(input=data[None], sep=b"\xff\xda", maxsplit=MAX_SCANS + 1)
    return parts.shape[1] <= MAX_SCANS + 1


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """int32, 1 to 8: how the image must be turned, as EXIF counts."""

    def read(raw: bytes | np.ndarray) -> np.int32:
        # By Pillow, because it also knows XMP's way of saying it, and how to live with damaged EXIF.
        try:
            with opened(_plain_bytes(raw)) as image:
                return np.int32(orientation_of(image))
        except Unreadable as reason:
            if reason.is_bomb:
                raise  # the exact path tells of it
            return np.int32(1)

    def ask() -> tf.Tensor:
        found = tf.numpy_function(read, [data], tf.int32)
        found.set_shape(())
        return found

    return tf.cond(_has_metadata(data), ask, lambda: 1)


def _plain_bytes(value: bytes | np.ndarray) -> bytes:
    """A string tensor's content as `tf.numpy_function` hands it over: bytes in a graph, an array eagerly."""
    return value.item() if isinstance(value, np.ndarray) else value


def _has_metadata(data: tf.Tensor) -> tf.Tensor:
    # After the usual APP0 of 16 bytes most files begin with a quantization table at once; the search costs 0.3 ms.
    has_app0 = tf.strings.substr(data, 2, 4) == b"\xff\xe0\x00\x10"
    first = tf.strings.substr(data, tf.where(has_app0, 20, 2), 2)
    head = tf.strings.substr(data, 0, _HEAD_BYTES)
    return tf.cond(first == b"\xff\xdb", lambda: False, lambda: _has(head, "Exif|Orientation"))


def _flips(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether an image of this orientation is mirrored left to right, and top to bottom, after it is transposed."""
    across = (orientation == 2) | (orientation == 3) | (orientation == 6) | (orientation == 7)
    down = (orientation == 3) | (orientation == 4) | (orientation == 7) | (orientation == 8)
    return across, down


def _in_raw_frame(box: tf.Tensor, height: tf.Tensor, width: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The box of the upright image, `height` by `width`, as it lies in the file: the turns undone, last first."""
    top, left, box_height, box_width = tf.unstack(box)
    across, down = _flips(orientation)
    left = tf.where(across, width - left - box_width, left)
    top = tf.where(down, height - top - box_height, top)
    upright, turned = tf.stack([top, left, box_height, box_width]), tf.stack([left, top, box_width, box_height])
    return tf.where(orientation >= 5, turned, upright)


def _upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    across, down = _flips(orientation)
    pixels = tf.cond(orientation >= 5, lambda: _transposed(pixels), lambda: pixels)
    pixels = tf.cond(across, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(down, lambda: tf.reverse(pixels, [0]), lambda: pixels)


def _transposed(pixels: tf.Tensor) -> tf.Tensor:
    # By looking each pixel up: when it prepares tf.transpose for bytes TensorFlow prints an error about oneDNN, in
    # every run, whether a photo is turned or not.
    height, width, channels = tf.unstack(tf.shape(pixels))
    source = tf.range(width)[:, None] + tf.range(height)[None, :] * width
    return tf.gather(tf.reshape(pixels, (height * width, channels)), source)
