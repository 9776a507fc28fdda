"""Geometric augmentations: flips, which are exact, and rotation, zoom, shift and shear, which interpolate.

Consecutive ones of the latter with the same `Resampling` are applied in one step (`augment_image`).
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
    """Flips images at random, with probability 0.5 for each declared direction.

    Fields:
        horizontal: flips left and right.
        vertical: flips top and bottom.

    Example:
        >>> pixels = np.array([[[10], [20], [30]]], np.uint8)
        >>> RandomFlip().apply(pixels, seed=(0, 1)).numpy()[..., 0]
        array([[30, 20, 10]], dtype=uint8)
    """

    horizontal: bool = True
    vertical: bool = False

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        across, down = self._draw_directions(seed)
        if self.horizontal:
            image = tf.cond(across, lambda: tf.reverse(image, [1]), lambda: image)
        if self.vertical:
            image = tf.cond(down, lambda: tf.reverse(image, [0]), lambda: image)
        return image

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        across, down = (tf.cast(flipped, tf.float32) for flipped in self._draw_directions(seed))
        return make_matrix(1 - 2 * across, 0.0, across * width, 0.0, 1 - 2 * down, down * height)

    def _draw_directions(self, seed: tf.Tensor) -> tuple[tf.Tensor | bool, tf.Tensor | bool]:
        """Whether the image is flipped horizontally, and whether vertically."""
        chance = draw(seed, 2)
        return self.horizontal and chance[0] < 0.5, self.vertical and chance[1] < 0.5


@final
class RandomRotation(Affine):
    """Rotates images about their center; they keep their size, so corners are cut off.

    Fields:
        degrees: maximum angle, either way.
        fill_mode, fill_value, interpolation: see `Resampling`.

    Example:
        >>> row = np.array([[[0], [10], [20], [30], [40]]], np.uint8)
        >>> RandomRotation(degrees=90).apply(row, seed=(0, 1)).numpy()[..., 0]
        array([[15, 17, 20, 23, 25]], dtype=uint8)
    """

    degrees: float = Field(10.0, ge=0, le=180)

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        return affine.rotation(between(draw(seed), -self.degrees, self.degrees), height, width)


@final
class RandomZoom(Affine):
    """Zooms images about their center.

    The result shows 1 - factor to 1 + factor times the height and the width: below 1 it zooms in, above 1 it zooms out.

    Fields:
        factor: 0.1 means 0.9 to 1.1 times.
        keep_proportions: one draw for both sides; otherwise each side has its own, as with `zoom_range` of Keras'
            `ImageDataGenerator`.
        fill_mode, fill_value, interpolation: see `Resampling`.

    Example:
        >>> row = np.array([[[0], [10], [20], [30], [40]]], np.uint8)
        >>> RandomZoom(factor=0.5).apply(row, seed=(0, 1)).numpy()[..., 0]  # in by a factor of 0.9
        array([[ 2, 11, 20, 29, 38]], dtype=uint8)
    """

    factor: float = Field(0.1, ge=0, lt=1)
    keep_proportions: bool = False

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        shown = between(draw(seed, 2), 1 - self.factor, 1 + self.factor)
        return affine.zoom(shown[0], shown[0 if self.keep_proportions else 1], height, width)


@final
class RandomShift(Affine):
    """Translates images.

    Fields:
        horizontal: left or right by up to this fraction of the width.
        vertical: up or down by up to this fraction of the height.
        fill_mode, fill_value, interpolation: see `Resampling`.

    Example:
        >>> row = np.array([[[0], [10], [20], [30], [40]]], np.uint8)
        >>> RandomShift(horizontal=0.5).apply(row, seed=(0, 1)).numpy()[..., 0]  # left by half a pixel
        array([[ 5, 15, 25, 35, 40]], dtype=uint8)
    """

    horizontal: float = Field(0.1, ge=0, le=1)
    vertical: float = Field(0.1, ge=0, le=1)

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        drawn = between(draw(seed, 2), -1, 1)
        return affine.shift(drawn[0] * self.vertical * height, drawn[1] * self.horizontal * width)


@final
class RandomShear(Affine):
    """Shears images about their center.

    Fields:
        horizontal: maximum angle in degrees by which vertical lines lean, either way.
        vertical: maximum angle in degrees by which horizontal lines rise or fall.
        fill_mode, fill_value, interpolation: see `Resampling`.

    Example:
        >>> bar = np.repeat(np.array([[[0], [0], [9], [0], [0]]], np.uint8), 3, axis=0)
        >>> RandomShear(horizontal=80.0, interpolation="nearest").apply(bar, seed=(0, 2)).numpy()[..., 0]
        array([[0, 9, 0, 0, 0],
               [0, 0, 9, 0, 0],
               [0, 0, 0, 9, 0]], dtype=uint8)
    """

    horizontal: float = Field(10.0, ge=0, lt=90)
    vertical: float = Field(0.0, ge=0, lt=90)

    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        drawn = between(draw(seed, 2), -1, 1)
        down = tf.tan(drawn[0] * math.radians(self.vertical))
        right = tf.tan(drawn[1] * math.radians(self.horizontal))
        return affine.shear(down, right, height, width)
