"""The second step of an image's way: from decoded pixels to the view of them that the model gets."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from model_trainer.images.decode import PixelFormat
from model_trainer.images.resize import fit_box, placed_box, resize_image
from model_trainer.pipeline.augment import Crop
from model_trainer.pipeline.augment.transform import stretch
from model_trainer.specs import ModelSpec

__all__ = ["View", "region_inside"]


@dataclass(frozen=True)
class View:
    """Chooses a box of an image, and stretches it to the spec's size.

    Attributes:
        spec: says the size, and how an image gets it.
        crop: takes the place of the spec's `resize`: what it chooses is stretched to the target.
    """

    spec: ModelSpec
    crop: Crop | None = None

    @property
    def pixels(self) -> PixelFormat:
        """How the pixels have to be decoded."""
        return PixelFormat(4 if self.spec.target_size[2] == 4 else 3, self.spec.background)

    def __call__(self, pixels: tf.Tensor, part: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """uint8 `target_size`: RGB, with 1 channel its luminance, with 4 RGB and alpha.

        Args:
            pixels: uint8 `(height, width, channels)`, the whole image.
            part: int32 `(4,)` top, left, height, width of what counts as the image; it lies inside.
            seed: int32 `(2,)`, of the crop.
        """
        top, left, height, width = tf.unstack(self.box(part, seed))
        return self.resized(pixels[top : top + height, left : left + width])

    def box(self, part: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """int32 `(4,)`: the box, in the image, of what is shown of `part`. A decoder need give no more than that."""
        height, width = part[2], part[3]
        box = fit_box(height, width, self.spec) if self.crop is None else self.crop.box(height, width, seed)
        return box + tf.stack([part[0], part[1], 0, 0])

    def resized(self, pixels: tf.Tensor) -> tf.Tensor:
        """The view, from the pixels of its box alone."""
        image = resize_image(pixels, self.spec, keep_proportions=self._keeps_proportions)
        return tf.ensure_shape(_luminance(image) if self.spec.target_size[2] == 1 else image, self.spec.target_size)

    def transform(self, part: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """float32 `(3, 3)`: from points of the whole upright image to points of the view; see `augment.transform`.

        Args:
            part, seed: those with which the view is called.

        Example:
            >>> View(ModelSpec(target_size=(10, 20, 3))).transform(tf.constant([0, 0, 20, 40]))
            [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
        """
        box = tf.unstack(self.box(part, seed))
        return stretch(box, placed_box(box[2], box[3], self.spec, keep_proportions=self._keeps_proportions))

    @property
    def _keeps_proportions(self) -> bool:
        return self.spec.resize == "pad" and self.crop is None


def region_inside(part: tf.Tensor | None, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """int32 `(4,)`: what of `part` lies inside the image, with a height or width of 0 or less where nothing does.

    Args:
        part: int32 `(4,)` top, left, height, width; height 0 and None mean the whole image.
    """
    whole = tf.stack([0, 0, height, width])
    if part is None:
        return whole
    top, left = tf.maximum(part[0], 0), tf.maximum(part[1], 0)
    bottom, right = tf.minimum(part[0] + part[2], height), tf.minimum(part[1] + part[3], width)
    return tf.where(part[2] > 0, tf.stack([top, left, bottom - top, right - left]), whole)


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 1)`, as Pillow's mode "L": ITU-R 601 in whole numbers."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.cast((red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 65536, tf.uint8)[..., None]
