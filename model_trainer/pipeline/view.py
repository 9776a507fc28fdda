"""Crops and resizes decoded pixels to the model's input size."""

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
    """Chooses a box of an image, and resizes it to the spec's size.

    Attributes:
        spec: the target size, and how an image is resized to it.
        crop: replaces the spec's `resize`: the box that it chooses is stretched to the target size.
    """

    spec: ModelSpec
    crop: Crop | None = None

    @property
    def pixels(self) -> PixelFormat:
        """The channels and the background that the decoder has to return."""
        return PixelFormat(4 if self.spec.target_size[2] == 4 else 3, self.spec.background)

    def __call__(self, pixels: tf.Tensor, region: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Crops and resizes `pixels`.

        Args:
            pixels: uint8 `(height, width, channels)`, the whole image.
            region: int32 `(4,)` top, left, height, width of the example's crop, which lies inside the image.
            seed: int32 `(2,)`, for a random crop.

        Returns:
            uint8 `target_size`: luminance with 1 channel, RGB with 3, RGB and alpha with 4.
        """
        top, left, height, width = tf.unstack(self.box(region, seed))
        return self.resized(pixels[top : top + height, left : left + width])

    def box(self, region: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """int32 `(4,)`: the box that the view shows of `region`, in pixels of the whole image.

        A decoder need decode no more than this box.
        """
        height, width = region[2], region[3]
        box = fit_box(height, width, self.spec) if self.crop is None else self.crop.box(height, width, seed)
        return box + tf.stack([region[0], region[1], 0, 0])

    def resized(self, pixels: tf.Tensor) -> tf.Tensor:
        """Resizes the pixels of `box` to uint8 `target_size`."""
        image = resize_image(pixels, self.spec, keep_proportions=self._keeps_proportions)
        return tf.ensure_shape(_luminance(image) if self.spec.target_size[2] == 1 else image, self.spec.target_size)

    def transform(self, region: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """float32 `(3, 3)`: from points of the whole upright image to points of the view; see `augment.transform`.

        Args:
            region, seed: those with which the view is called.

        Example:
            >>> View(ModelSpec(target_size=(10, 20, 3))).transform(tf.constant([0, 0, 20, 40])).numpy().tolist()
            [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
        """
        box = tf.unstack(self.box(region, seed))
        return stretch(box, placed_box(box[2], box[3], self.spec, keep_proportions=self._keeps_proportions))

    @property
    def _keeps_proportions(self) -> bool:
        return self.spec.resize == "pad" and self.crop is None


def region_inside(region: tf.Tensor | None, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Clips `region` to the image.

    Args:
        region: int32 `(4,)` top, left, height, width; height 0 and None mean the whole image.
        height, width: int32 `()`, of the image.

    Returns:
        int32 `(4,)`, with a height or width of 0 or less if `region` lies outside the image.
    """
    full_image = tf.stack([0, 0, height, width])
    if region is None:
        return full_image
    top, left = tf.maximum(region[0], 0), tf.maximum(region[1], 0)
    bottom, right = tf.minimum(region[0] + region[2], height), tf.minimum(region[1] + region[3], width)
    return tf.where(region[2] > 0, tf.stack([top, left, bottom - top, right - left]), full_image)


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 1)`, as Pillow's mode "L": ITU-R 601 in integer arithmetic."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.cast((red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 65536, tf.uint8)[..., None]
