"""Random changes of color. They keep alpha; hue, saturation and gray leave images with one channel unchanged.

All but gray compute in float32 and round once, half up; gray is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pydantic import Field

from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number, Probability, between, draw, sometimes
from model_trainer.pipeline.augment.pixels import LUMINANCE, has_color, on_colors, rounded, size_of

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "RandomBrightness",
    "RandomContrast",
    "RandomGrayscale",
    "RandomHue",
    "RandomSaturation",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "to_gray",
]


@final
class RandomBrightness(Augmentation):
    """Randomly changes the brightness of images.

    Fields:
        factor: all values are multiplied by a random number from 1 - factor to 1 + factor; times 0 is black.

    Example:
        >>> pixel = np.array([[[200, 100, 50]]], np.uint8)
        >>> RandomBrightness(factor=0.5).apply(pixel, seed=(0, 1)).numpy()
        array([[[116,  58,  29]]], dtype=uint8)
    """

    factor: float = Field(0.2, ge=0, le=1)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_brightness(image, between(draw(seed), 1 - self.factor, 1 + self.factor))


@final
class RandomContrast(Augmentation):
    """Randomly changes the contrast of images.

    Fields:
        factor: the distance of each value from the image's mean gray is multiplied by a random number from 1 - factor
            to 1 + factor.

    Example:
        >>> pixels = np.array([[[200], [100]]], np.uint8)
        >>> RandomContrast(factor=0.5).apply(pixels, seed=(0, 1)).numpy()
        array([[[179],
                [121]]], dtype=uint8)
    """

    factor: float = Field(0.2, ge=0, le=1)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_contrast(image, between(draw(seed), 1 - self.factor, 1 + self.factor))


@final
class RandomSaturation(Augmentation):
    """Randomly changes the saturation of images.

    Fields:
        factor: the distance of each pixel from its own gray is multiplied by a random number from 1 - factor to
            1 + factor.

    Example:
        >>> pixel = np.array([[[200, 100, 50]]], np.uint8)
        >>> RandomSaturation(factor=0.5).apply(pixel, seed=(0, 1)).numpy()
        array([[[168, 110,  81]]], dtype=uint8)
    """

    factor: float = Field(0.2, ge=0, le=1)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_saturation(image, between(draw(seed), 1 - self.factor, 1 + self.factor))


@final
class RandomHue(Augmentation):
    """Randomly changes the hue of images.

    Fields:
        factor: hues are rotated by up to this fraction of the color circle either way; at 0.5 red may become cyan.

    Example:
        >>> pixel = np.array([[[200, 100, 50]]], np.uint8)
        >>> RandomHue(factor=0.5).apply(pixel, seed=(0, 1)).numpy()
        array([[[ 50,  76, 200]]], dtype=uint8)
    """

    factor: float = Field(0.05, ge=0, le=0.5)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_hue(image, between(draw(seed), -self.factor, self.factor))


@final
class RandomGrayscale(Augmentation):
    """Randomly converts images to gray; they keep their number of channels.

    Fields:
        probability: fraction of the images it is applied to.

    Example:
        >>> pixel = np.array([[[200, 100, 50]]], np.uint8)
        >>> RandomGrayscale(probability=1.0).apply(pixel, seed=(0, 1)).numpy()
        array([[[124, 124, 124]]], dtype=uint8)
    """

    former_names = ("RandomGrey",)

    probability: Probability = 0.1

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return sometimes(self.probability, draw(seed), image, to_gray)


def adjust_brightness(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Multiplies all values by `factor`, at least 0."""
    import tensorflow as tf

    return on_colors(image, lambda colors: rounded(tf.cast(colors, tf.float32) * factor))


def adjust_contrast(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Multiplies each value's distance from the image's mean gray by `factor`."""
    import tensorflow as tf

    def change(colors: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(colors, tf.float32)
        # Sums of integers, exact and so independent of their order: of a column in float32, of all in float64.
        sums = tf.reduce_sum(tf.cast(tf.reduce_sum(pixels, axis=0), tf.float64), axis=0)
        height, width = size_of(image)
        means = sums / tf.cast(height * width, tf.float64)
        mean = tf.cast(tf.reduce_sum(means * LUMINANCE) if has_color(image) else means[0], tf.float32)
        return rounded(pixels * factor + mean * (1 - factor))

    return on_colors(image, change)


def adjust_saturation(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Multiplies each pixel's distance from its own gray by `factor`."""
    import tensorflow as tf

    if not has_color(image):
        return image
    identity, gray = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), tf.constant([[each] * 3 for each in LUMINANCE])
    return on_colors(image, lambda colors: _times_matrix(colors, factor * identity + (1 - factor) * gray))


def adjust_hue(image: tf.Tensor, delta: Number) -> tf.Tensor:
    """Rotates all hues by the fraction `delta`, -1 to 1, of the color circle, from red through green to blue."""
    import tensorflow as tf

    if not has_color(image):
        return image
    return on_colors(
        image, lambda colors: rounded(tf.raw_ops.AdjustHue(images=tf.cast(colors, tf.float32), delta=delta))
    )


def to_gray(image: tf.Tensor) -> tf.Tensor:
    """The luminance, ITU-R 601 as Pillow's mode "L", in all channels."""
    import tensorflow as tf

    if not has_color(image):
        return image
    return on_colors(image, lambda colors: _times_matrix(colors, tf.constant([[each] * 3 for each in LUMINANCE])))


def _times_matrix(colors: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiplies the RGB of each pixel by a float32 `(3, 3)`; faster than a sum over channels."""
    import tensorflow as tf

    return rounded(tf.tensordot(tf.cast(colors, tf.float32), matrix, 1))
