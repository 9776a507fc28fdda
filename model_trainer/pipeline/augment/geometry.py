"""Changes of place: mirroring, which is exact, and rotation, zoom, shift and shear, which interpolate.

Several of the latter in a row that fill alike are one resampling (`augment_image`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

from pydantic import Field

from model_trainer.pipeline.augment import affine
from model_trainer.pipeline.augment.affine import Affine
from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number, between, draw
from model_trainer.pipeline.augment.transform import make_matrix

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["RandomFlip", "RandomRotation", "RandomShear", "RandomShift", "RandomZoom"]


@final
class RandomFlip(Augmentation):
    """Mirrors half of the images, each way by itself.

    Fields:
        horizontal: left and right change places.
        vertical: top and bottom do.
    """

    horizontal: bool = True
    vertical: bool = False

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        across, down = self._drawn(seed)
        if self.horizontal:
            image = tf.cond(across, lambda: tf.reverse(image, [1]), lambda: image)
        if self.vertical:
            image = tf.cond(down, lambda: tf.reverse(image, [0]), lambda: image)
        return image

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        across, down = (tf.cast(mirrored, tf.float32) for mirrored in self._drawn(seed))
        return make_matrix(1 - 2 * across, 0.0, across * width, 0.0, 1 - 2 * down, down * height)

    def _drawn(self, seed: tf.Tensor) -> tuple[tf.Tensor | bool, tf.Tensor | bool]:
        """Whether left and right change places, and whether top and bottom do."""
        chance = draw(seed, 2)
        return self.horizontal and chance[0] < 0.5, self.vertical and chance[1] < 0.5


@final
class RandomRotation(Affine):
    """Turns about the centre, by up to `degrees` either way; the image keeps its size, so corners are cut off."""

    degrees: float = Field(10.0, ge=0, le=180)

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        return affine.rotation(between(draw(seed), -self.degrees, self.degrees), height, width)


@final
class RandomZoom(Affine):
    """Shows between 1 - factor and 1 + factor times the height and the width: below 1 things grow, above 1 they shrink.

    Fields:
        factor: 0.1 means 0.9 to 1.1 times.
        keep_proportions: one draw for both sides; otherwise each has its own, as `zoom_range` of Keras'
            `ImageDataGenerator`.
    """

    factor: float = Field(0.1, ge=0, lt=1)
    keep_proportions: bool = False

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        shown = between(draw(seed, 2), 1 - self.factor, 1 + self.factor)
        return affine.zoom(shown[0], shown[0 if self.keep_proportions else 1], height, width)


@final
class RandomShift(Affine):
    """Moves the image.

    Fields:
        horizontal: to either side by up to this share of the width.
        vertical: up or down by up to this share of the height.
    """

    horizontal: float = Field(0.1, ge=0, le=1)
    vertical: float = Field(0.1, ge=0, le=1)

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        share = between(draw(seed, 2), -1, 1)
        return affine.shift(share[0] * self.vertical * height, share[1] * self.horizontal * width)


@final
class RandomShear(Affine):
    """Slants the image about its centre.

    Fields:
        horizontal: upright lines lean to either side by up to so many degrees.
        vertical: level lines rise or fall by up to so many degrees.
    """

    horizontal: float = Field(10.0, ge=0, lt=90)
    vertical: float = Field(0.0, ge=0, lt=90)

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        share = between(draw(seed, 2), -1, 1)
        down = tf.tan(share[0] * math.radians(self.vertical))
        right = tf.tan(share[1] * math.radians(self.horizontal))
        return affine.shear(down, right, height, width)
