"""Covering a part of the image."""

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
    """Covers a rectangle, which lies inside the image; where there is alpha, the rectangle is opaque.

    Fields:
        area: least and largest share of the image's area.
        ratio: least and largest width / height; chosen evenly on a logarithmic scale.
        fill_value: what covers it: 0 to 255 for all colours, or "noise", a value of its own for each pixel and colour.
        probability: share of the images that it happens to.

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
            beside = image[top : top + height]
            covered = tf.concat([beside[:, :left], patch, beside[:, left + width :]], axis=1)
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
