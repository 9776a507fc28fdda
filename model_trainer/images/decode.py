"""Decodes image files in two ways: a fast path for ordinary JPEG and PNG, and an exact path for all images.

The fast path runs in TensorFlow's own threads, and decodes only the requested region of a JPEG. Ordinary images are
JPEG with 1 or 3 components and PNG, neither of them large. All others, and damaged ones, raise
`tf.errors.InvalidArgumentError`; the exact path then decodes them with Pillow.
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
# The orientation of a JPEG is in its first bytes; searching a large file completely takes a tenth of decoding it.
_HEAD_BYTES = 262_144


class Header(NamedTuple):
    """The header of an ordinary image, and its bytes.

    Attributes:
        data: string `()`, all bytes.
        is_jpeg: bool `()`; otherwise it is a PNG.
        height, width: int32 `()`, of the upright image.
        orientation: int32 `()`, the EXIF orientation, 1 to 8.
    """

    data: tf.Tensor
    is_jpeg: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    orientation: tf.Tensor


class PixelFormat(NamedTuple):
    """The requested pixel format.

    Attributes:
        num_channels: 3 for RGB, 4 for RGB and alpha.
        background: RGB, 0 to 255, behind transparent pixels; not used with 4 channels.
    """

    num_channels: int = 3
    background: tuple[int, int, int] = (255, 255, 255)


def read_header(data: tf.Tensor) -> Header:
    """Reads the header of an ordinary image.

    Args:
        data: string `()`, the encoded image.

    Raises:
        tf.errors.InvalidArgumentError: at run time, for any other image.
    """
    return Header(*_graph_of(_read_header)(data))


def decode(header: Header, region: tf.Tensor, pixels: PixelFormat) -> tf.Tensor:
    """Decodes a region of an ordinary image.

    Args:
        header: the result of `read_header`.
        region: int32 `(4,)`: top, left, height and width, in pixels of the upright image.
        pixels: the format of the result.

    Returns:
        uint8 `(height, width, num_channels)`.
    """
    return tf.ensure_shape(_graph_of(_decode, pixels)(header, region), (None, None, pixels.num_channels))


def decode_exact(data: tf.Tensor, pixels: PixelFormat) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes any bytes with Pillow; never raises, whatever the bytes are.

    Args:
        data: string `()`, the encoded image.
        pixels: the format of the result.

    Returns:
        `(image, readable)`: uint8 `(height, width, num_channels)`, upright, or a single black pixel if it cannot be
        read; and bool `()`.
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
    """`function(*inputs, *options)` as a graph shared by all pipelines of the process, because tracing takes 0.1 s."""
    return tf.function(lambda *inputs: function(*inputs, *options), autograph=False, reduce_retracing=False)


def _read_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    is_jpeg = _is_jpeg(data)
    with tf.control_dependencies([tf.debugging.Assert(is_jpeg | _is_plain_png(data), ["kind"])]):
        data = tf.identity(data)
    data, height, width, orientation = tf.cond(is_jpeg, lambda: _jpeg_header(data), lambda: _png_header(data))
    return data, is_jpeg, height, width, orientation


def _is_plain_png(data: tf.Tensor) -> tf.Tensor:
    is_png = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    # Any of these chunks may contain an orientation, even after the pixels; Pillow decodes such PNGs, which are rare.
    return tf.cond(is_png, lambda: ~_has(data, "eXIf|Raw profile type|XML:com.adobe.xmp"), lambda: False)


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    raw_height, raw_width, components = tf.unstack(tf.image.extract_jpeg_shape(data))
    is_ordinary = (components != 4) & _is_small(raw_height, raw_width, LARGE_PIXELS) & _has_few_scans(data)
    with tf.control_dependencies([tf.debugging.Assert(is_ordinary, ["CMYK, large or many scans"])]):
        data, orientation = tf.identity(data), _orientation(data)
    is_transposed = orientation >= 5
    height, width = tf.where(is_transposed, raw_width, raw_height), tf.where(is_transposed, raw_height, raw_width)
    return data, height, width, orientation


def _png_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    # Checked first, because the error for a position past the end contains the bytes, which Python cannot decode.
    with tf.control_dependencies([tf.debugging.Assert(tf.strings.length(data) >= 25, ["truncated"])]):
        data = tf.identity(data)
    sizes = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
    width, height = sizes[0], sizes[1]
    # With fewer bits per channel TensorFlow decodes wrong grays (254 for black in a two-color PNG); Pillow decodes
    # those images. A PNG is decoded as a whole, and takes up to 22 bytes per pixel with alpha.
    is_ordinary = (_bits_of_png(data) >= 8) & _is_small(height, width, LARGE_PIXELS // 2)
    with tf.control_dependencies([tf.debugging.Assert(is_ordinary, ["few bits or large"])]):
        return tf.identity(data), height, width, tf.constant(1)


def _bits_of_png(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(data, 24, 1), tf.uint8)[0]


def _decode(header: Header, region: tf.Tensor, pixels: PixelFormat) -> tf.Tensor:
    return tf.cond(header.is_jpeg, lambda: _jpeg(header, region, pixels), lambda: _png(header.data, region, pixels))


def _jpeg(header: Header, region: tf.Tensor, pixel_format: PixelFormat) -> tf.Tensor:
    raw_region = _in_raw_frame(region, header.height, header.width, header.orientation)
    # As accurate as Pillow; TensorFlow's default is a faster approximation.
    image = tf.image.decode_and_crop_jpeg(header.data, raw_region, channels=3, dct_method="INTEGER_ACCURATE")
    image = _upright(image, header.orientation)
    if pixel_format.num_channels == 3:
        return image
    return tf.concat([image, tf.fill(tf.concat([tf.shape(image)[:2], [1]], 0), tf.constant(255, tf.uint8))], -1)


def _png(data: tf.Tensor, region: tf.Tensor, pixel_format: PixelFormat) -> tf.Tensor:
    is_16_bit = _bits_of_png(data) == 16
    rgba = tf.cond(is_16_bit, lambda: _png_16_bit(data), lambda: tf.io.decode_png(data, channels=4))
    top, left, height, width = tf.unstack(region)
    rgba = rgba[top : top + height, left : left + width]
    if pixel_format.num_channels == 4:
        return rgba
    opaque = tf.reduce_min(rgba[..., 3]) == 255
    return tf.cond(opaque, lambda: rgba[..., :3], lambda: _composite(rgba, pixel_format.background))


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


def _has(data: tf.Tensor, alternatives: str) -> tf.Tensor:
    # \C matches any byte; a dot would stop at invalid UTF-8.
    return tf.strings.regex_full_match(data, rf"\C*({alternatives})\C*")


def _is_small(height: tf.Tensor, width: tf.Tensor, limit: int) -> tf.Tensor:
    num_pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return (height > 0) & (width > 0) & (num_pixels <= min(limit, MAX_PIXELS))


def _has_few_scans(data: tf.Tensor) -> tf.Tensor:
    # Counts the two-byte marker of a scan, which cannot occur inside compressed pixels.
    pieces = tf.raw_ops.StringSplitV2(input=data[None], sep=b"\xff\xda", maxsplit=MAX_SCANS + 1)
    return pieces.shape[1] <= MAX_SCANS + 1


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """int32 `()`: the EXIF orientation, 1 to 8."""

    def read(raw: bytes | np.ndarray) -> np.int32:
        # Pillow also reads the orientation in XMP, and tolerates damaged EXIF.
        try:
            with opened(_plain_bytes(raw)) as image:
                return np.int32(orientation_of(image))
        except Unreadable as reason:
            if reason.is_bomb:
                raise  # the exact path reports it
            return np.int32(1)

    def read_metadata() -> tf.Tensor:
        orientation = tf.numpy_function(read, [data], tf.int32)
        orientation.set_shape(())
        return orientation

    return tf.cond(_has_metadata(data), read_metadata, lambda: 1)


def _plain_bytes(value: bytes | np.ndarray) -> bytes:
    """The bytes of a string tensor; `tf.numpy_function` passes bytes in a graph, but an array in eager execution."""
    return value.item() if isinstance(value, np.ndarray) else value


def _has_metadata(data: tf.Tensor) -> tf.Tensor:
    # In most files a quantization table directly follows the usual APP0 of 16 bytes; the search costs 0.3 ms.
    has_app0 = tf.strings.substr(data, 2, 4) == b"\xff\xe0\x00\x10"
    first = tf.strings.substr(data, tf.where(has_app0, 20, 2), 2)
    head = tf.strings.substr(data, 0, _HEAD_BYTES)
    return tf.cond(first == b"\xff\xdb", lambda: False, lambda: _has(head, "Exif|Orientation"))


def _flips(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether an image of this orientation is flipped horizontally, and vertically, after it is transposed."""
    across = (orientation == 2) | (orientation == 3) | (orientation == 6) | (orientation == 7)
    down = (orientation == 3) | (orientation == 4) | (orientation == 7) | (orientation == 8)
    return across, down


def _in_raw_frame(box: tf.Tensor, height: tf.Tensor, width: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Converts a box of the upright image, `height` by `width`, to coordinates in the file's own orientation."""
    top, left, box_height, box_width = tf.unstack(box)
    across, down = _flips(orientation)
    left = tf.where(across, width - left - box_width, left)
    top = tf.where(down, height - top - box_height, top)
    upright, transposed = tf.stack([top, left, box_height, box_width]), tf.stack([left, top, box_width, box_height])
    return tf.where(orientation >= 5, transposed, upright)


def _upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    across, down = _flips(orientation)
    pixels = tf.cond(orientation >= 5, lambda: _transposed(pixels), lambda: pixels)
    pixels = tf.cond(across, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(down, lambda: tf.reverse(pixels, [0]), lambda: pixels)


def _transposed(pixels: tf.Tensor) -> tf.Tensor:
    # Not tf.transpose: with uint8 TensorFlow would print an error about oneDNN in every run, whether an image is
    # rotated or not.
    height, width, channels = tf.unstack(tf.shape(pixels))
    source = tf.range(width)[:, None] + tf.range(height)[None, :] * width
    return tf.gather(tf.reshape(pixels, (height * width, channels)), source)
