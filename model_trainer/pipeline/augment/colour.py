"""Changes of colour; alpha stays as it is, and so does an image of one channel where there is no colour to change.

All but the grey compute in float32 and round once, halves up; grey is exact in whole numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pydantic import Field

from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number, Probability, between, draw, sometimes
from model_trainer.pipeline.augment.pixels import LUMINANCE, has_colour, on_colours, rounded, size_of

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "RandomBrightness",
    "RandomContrast",
    "RandomGrey",
    "RandomHue",
    "RandomSaturation",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "to_grey",
]


@final
class RandomBrightness(Augmentation):
    """Multiplies all values by a number from 1 - factor to 1 + factor; 0 is black."""

    factor: float = Field(0.2, ge=0, le=1)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_brightness(image, between(draw(seed), 1 - self.factor, 1 + self.factor))


@final
class RandomContrast(Augmentation):
    """Multiplies each value's distance from the image's mean grey by a number from 1 - factor to 1 + factor."""

    factor: float = Field(0.2, ge=0, le=1)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_contrast(image, between(draw(seed), 1 - self.factor, 1 + self.factor))


@final
class RandomSaturation(Augmentation):
    """Multiplies each colour's distance from its own grey by a number from 1 - factor to 1 + factor."""

    factor: float = Field(0.2, ge=0, le=1)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_saturation(image, between(draw(seed), 1 - self.factor, 1 + self.factor))


@final
class RandomHue(Augmentation):
    """Turns all colours by up to `factor` of the colour circle either way; at 0.5 red may become cyan."""

    factor: float = Field(0.05, ge=0, le=0.5)

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return adjust_hue(image, between(draw(seed), -self.factor, self.factor))


@final
class RandomGrey(Augmentation):
    """Takes the colour away from a share of the images; they keep their channels."""

    probability: Probability = 0.1

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return sometimes(self.probability, draw(seed), image, to_grey)


def adjust_brightness(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """`image` times `factor`, at least 0."""
    import tensorflow as tf

    return on_colours(image, lambda colours: rounded(tf.cast(colours, tf.float32) * factor))


def adjust_contrast(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """The image's mean grey and `factor` times the distance from it."""
    import tensorflow as tf

    def change(colours: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(colours, tf.float32)
        # Sums of whole numbers, exact and so the same in any order: of a column in float32, of all in float64.
        sums = tf.reduce_sum(tf.cast(tf.reduce_sum(pixels, axis=0), tf.float64), axis=0)
        height, width = size_of(image)
        means = sums / tf.cast(height * width, tf.float64)
        mean = tf.cast(tf.reduce_sum(means * LUMINANCE) if has_colour(image) else means[0], tf.float32)
        return rounded(pixels * factor + mean * (1 - factor))

    return on_colours(image, change)


def adjust_saturation(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Each pixel's grey and `factor` times the distance from it."""
    import tensorflow as tf

    if not has_colour(image):
        return image
    own, grey = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), tf.constant([[share] * 3 for share in LUMINANCE])
    return on_colours(image, lambda colours: _times_matrix(colours, factor * own + (1 - factor) * grey))


def adjust_hue(image: tf.Tensor, turn: Number) -> tf.Tensor:
    """All colours turned by `turn`, -1 to 1, of the colour circle, from red by way of green to blue."""
    import tensorflow as tf

    if not has_colour(image):
        return image
    return on_colours(
        image, lambda colours: rounded(tf.raw_ops.AdjustHue(images=tf.cast(colours, tf.float32), delta=turn))
    )


def to_grey(image: tf.Tensor) -> tf.Tensor:
    """The luminance, ITU-R 601 as Pillow's mode "L", in all channels."""
    import tensorflow as tf

    if not has_colour(image):
        return image
    return on_colours(image, lambda colours: _times_matrix(colours, tf.constant([[share] * 3 for share in LUMINANCE])))


def _times_matrix(colours: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Each pixel's red, green and blue times a float32 `(3, 3)`; faster than a sum over channels."""
    import tensorflow as tf

    return rounded(tf.tensordot(tf.cast(colours, tf.float32), matrix, 1))
