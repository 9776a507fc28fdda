"""Moving pixels by an affine matrix: what lies between pixels is interpolated, what lies outside is filled."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

from model_trainer.pipeline.augment.pixels import rounded, size_of

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["FillMode", "Interpolation", "Resampling", "resample"]

FillMode = Literal["constant", "nearest", "reflect", "wrap"]
Interpolation = Literal["nearest", "bilinear"]


class Resampling(NamedTuple):
    """How an image is resampled.

    Attributes:
        fill_mode: outside the image, in Keras' words: "constant" is `fill_value`, "nearest" the closest pixel
            (aaa|abcd|ddd), "reflect" the mirrored image (cba|abcd|dcb), "wrap" the image again (bcd|abcd|abc).
        fill_value: 0 to 255, for all channels, alpha too.
        interpolation: "bilinear" weighs the four pixels around a place, "nearest" takes the closest.
    """

    fill_mode: FillMode = "nearest"
    fill_value: int = 0
    interpolation: Interpolation = "bilinear"


def resample(image: tf.Tensor, matrix: tf.Tensor, how: Resampling) -> tf.Tensor:
    """The image whose pixel (x, y) is what `image` has at `matrix` times (x, y, 1).

    Args:
        image: uint8 `(height, width, channels)`.
        matrix: float32 `(3, 3)`, from places in the result to places in `image`, in pixels; whole numbers are the
            centres of pixels, the first one's is (0, 0).
        how: interpolation and filling.

    Returns:
        uint8 of the same shape. "bilinear" computes in float32 and rounds once, "nearest" copies pixels.
    """
    import tensorflow as tf

    if how.fill_mode == "wrap":
        return tf.ensure_shape(_resample_wrapped(image, matrix, how.interpolation), image.shape)
    is_exact = how.interpolation == "nearest"
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        # The kernel would cut off the fractions that interpolation makes of uint8.
        images=(image if is_exact else tf.cast(image, tf.float32))[None],
        transforms=tf.reshape(matrix, (1, 9))[:, :8],
        output_shape=size_of(image),
        fill_value=float(how.fill_value),
        interpolation=how.interpolation.upper(),
        fill_mode=how.fill_mode.upper(),
    )[0]
    return tf.ensure_shape(moved if is_exact else rounded(moved), image.shape)


def _resample_wrapped(image: tf.Tensor, matrix: tf.Tensor, interpolation: Interpolation) -> tf.Tensor:
    """`resample` of the image repeated without end; TensorFlow's kernel goes wrong a side's length away from it."""
    import tensorflow as tf

    height, width = size_of(image)
    y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    places = tf.stack([x, y, tf.ones_like(x)], axis=-1)
    from_x, from_y = tf.unstack(tf.tensordot(tf.cast(places, tf.float32), matrix[:2], [[2], [1]]), axis=-1)
    pixels = tf.reshape(image, (-1, image.shape[-1]))

    def pixel_at(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        row, column = tf.cast(y, tf.int32) % height, tf.cast(x, tf.int32) % width
        return tf.gather(pixels, row * width + column)

    if interpolation == "nearest":
        return pixel_at(tf.floor(from_y + 0.5), tf.floor(from_x + 0.5))
    top, left = tf.floor(from_y), tf.floor(from_x)
    down, right = (from_y - top)[..., None], (from_x - left)[..., None]
    corners = [
        tf.cast(pixel_at(top + below, left + beside), tf.float32)
        * (down if below else 1 - down)
        * (right if beside else 1 - right)
        for below, beside in itertools.product((0, 1), repeat=2)
    ]
    return rounded(tf.add_n(corners))
