"""Random erasing: covers a rectangle of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, final

from pydantic import Field

from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Probability, draw, sometimes
from model_trainer.pipeline.augment.crops import box_of_area
from model_trainer.pipeline.augment.ranges import FractionRange, PositiveRange

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["RandomErasing"]


@final
class RandomErasing(Augmentation):
    """Covers a random rectangle inside the image; in images with alpha the rectangle is opaque.

    Fields:
        area: minimum and maximum fraction of the image's area.
        ratio: minimum and maximum width / height; drawn uniformly on a logarithmic scale.
        fill_value: 0 to 255 for all colors, or "noise", a random value for each pixel and color.
        probability: fraction of the images it is applied to.

    Example:
        >>> erase = RandomErasing(area=(0.25, 0.25), ratio=(1.0, 1.0), fill_value=9, probability=1.0)
        >>> erase.apply(np.zeros((4, 4, 1), np.uint8), seed=(0, 1)).numpy()[..., 0]
        array([[0, 9, 9, 0],
               [0, 9, 9, 0],
               [0, 0, 0, 0],
               [0, 0, 0, 0]], dtype=uint8)

    Source: https://arxiv.org/abs/1708.04896
    """

    area: FractionRange = (0.02, 0.33)
    ratio: PositiveRange = (0.3, 1 / 0.3)
    fill_value: Annotated[int, Field(ge=0, le=255)] | Literal["noise"] = "noise"
    probability: Probability = 0.5

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        chance = draw(seed, 5)

        def cover(image: tf.Tensor) -> tf.Tensor:
            box = box_of_area(tf.shape(image)[0], tf.shape(image)[1], chance[1:], self.area, self.ratio)
            top, left, height, width = tf.unstack(box)
            patch = self._patch(height, width, image.shape[-1], tf.random.experimental.stateless_fold_in(seed, 1))
            band = image[top : top + height]
            covered = tf.concat([band[:, :left], patch, band[:, left + width :]], axis=1)
            return tf.ensure_shape(tf.concat([image[:top], covered, image[top + height :]], axis=0), image.shape)

        return sometimes(self.probability, chance[0], image, cover)

    def _patch(self, height: tf.Tensor, width: tf.Tensor, channels: int, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        shape = tf.stack([height, width, min(channels, 3)])
        if self.fill_value == "noise":
            patch = tf.cast(tf.random.stateless_uniform(shape, seed, 0, 256, tf.int32), tf.uint8)
        else:
            patch = tf.fill(shape, tf.constant(self.fill_value, tf.uint8))
        return tf.pad(patch, [[0, 0], [0, 0], [0, 1]], constant_values=255) if channels == 4 else patch
