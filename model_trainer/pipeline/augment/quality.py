"""Random changes of image quality: blur, sharpness and JPEG compression. All keep alpha."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

from pydantic import field_validator

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number, Probability, between, draw, draw_integer, sometimes
from model_trainer.pipeline.augment.pixels import on_colors, rounded, size_of
from model_trainer.pipeline.augment.ranges import PositiveRange

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["RandomBlur", "RandomJpegQuality", "adjust_sharpness", "blur", "compress_as_jpeg"]


@final
class RandomBlur(Augmentation):
    """Blurs images with a Gaussian kernel; computed in float32 and rounded once, half up.

    Fields:
        sigma: minimum and maximum standard deviation, in pixels.
        probability: fraction of the images it is applied to.

    Example:
        >>> row = np.array([[[0], [0], [90], [0], [0]]], np.uint8)
        >>> RandomBlur(sigma=(0.1, 2.0), probability=1.0).apply(row, seed=(0, 1)).numpy()[..., 0]
        array([[ 4, 22, 41, 22,  4]], dtype=uint8)
    """

    sigma: PositiveRange = (0.1, 2.0)
    probability: Probability = 0.5

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        chance = draw(seed, 2)
        radius = math.ceil(3 * self.sigma[1])
        return sometimes(
            self.probability, chance[0], image, lambda image: blur(image, between(chance[1], *self.sigma), radius)
        )


@final
class RandomJpegQuality(Augmentation):
    """Compresses images as JPEG and decodes them again.

    Fields:
        quality: minimum and maximum quality, integers from 1 to 100 as in Pillow; 100 is not lossless.
        probability: fraction of the images it is applied to.

    Example:
        >>> row = np.array([[[0], [0], [90], [0], [0]]], np.uint8)
        >>> RandomJpegQuality(quality=(50, 100), probability=1.0).apply(row, seed=(0, 1)).shape
        TensorShape([1, 5, 1])
    """

    quality: tuple[int, int] = (50, 100)
    probability: Probability = 0.5

    @field_validator("quality")
    @classmethod
    def _from_min_to_max(cls, quality: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= quality[0] <= quality[1] <= 100:
            raise ConfigError(f"should be two integers from 1 to 100, the smaller first, got {list(quality)}.")
        return quality

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        chance, (min_quality, max_quality) = draw(seed, 2), self.quality
        return sometimes(
            self.probability,
            chance[0],
            image,
            lambda image: compress_as_jpeg(image, min_quality + draw_integer(chance[1], max_quality - min_quality)),
        )


def blur(image: tf.Tensor, sigma: Number, radius: int) -> tf.Tensor:
    """Gaussian blur; at the edges the weights are normalized over the pixels inside the image.

    Args:
        image: uint8 `(height, width, channels)`.
        sigma: standard deviation in pixels, above 0.
        radius: of the kernel, in pixels; 3 times `sigma` leaves out 0.3 % of the weight.
    """
    import tensorflow as tf

    distance = tf.range(-radius, radius + 1, dtype=tf.float32)
    weights = tf.exp(-tf.square(distance / sigma) / 2)
    height, width = size_of(image)
    down = _smoothed(tf.ones((1, height, 1, 1)), weights[:, None])
    right = _smoothed(tf.ones((1, 1, width, 1)), weights[None, :])

    def change(colors: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(colors, tf.float32)[None]
        return rounded((_smoothed(_smoothed(pixels, weights[:, None]), weights[None, :]) / (down * right))[0])

    return on_colors(image, change)


def compress_as_jpeg(image: tf.Tensor, quality: tf.Tensor | int) -> tf.Tensor:
    """Encodes the image as JPEG of `quality`, 1 to 100, and decodes it again."""
    import tensorflow as tf

    def change(colors: tf.Tensor) -> tf.Tensor:
        data = tf.raw_ops.EncodeJpegVariableQuality(images=colors, quality=quality)
        decoded = tf.image.decode_jpeg(data, channels=colors.shape[-1], dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(decoded, colors.shape)

    return on_colors(image, change)


def adjust_sharpness(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Multiplies each pixel's distance from a slightly smoothed image by `factor`, at least 0, as Pillow's `Sharpness`.

    The outermost pixels stay unchanged.
    """
    import tensorflow as tf

    weights = tf.constant([[1 / 13, 1 / 13, 1 / 13], [1 / 13, 5 / 13, 1 / 13], [1 / 13, 1 / 13, 1 / 13]])
    height, width = size_of(image)
    inside = tf.reshape(_is_inside(height), (-1, 1, 1)) * tf.reshape(_is_inside(width), (1, -1, 1))

    def change(colors: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(colors, tf.float32)
        return rounded(pixels + (_smoothed(pixels[None], weights)[0] - pixels) * inside * (1 - factor))

    return on_colors(image, change)


def _smoothed(pixels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Convolves float32 `(1, height, width, channels)` with `weights`, `(rows, columns)`, with zero padding."""
    import tensorflow as tf

    kernel = tf.tile(weights[:, :, None, None], (1, 1, pixels.shape[-1], 1))
    return tf.nn.depthwise_conv2d(pixels, kernel, [1, 1, 1, 1], "SAME")


def _is_inside(length: tf.Tensor | int) -> tf.Tensor:
    """float32 `(length,)`: 1, and 0 at both ends."""
    import tensorflow as tf

    position = tf.range(length)
    return tf.cast((position > 0) & (position < length - 1), tf.float32)
