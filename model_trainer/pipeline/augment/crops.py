"""Random crops; only the cropped region of an image is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pydantic import field_validator

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment.augmentation import Crop
from model_trainer.pipeline.augment.chance import draw, draw_integer
from model_trainer.pipeline.augment.ranges import FractionRange, PositiveRange

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["RandomCrop", "RandomResizedCrop", "box_of_area"]


@final
class RandomResizedCrop(Crop):
    """Crops a region of random area and aspect ratio, which is then resized to the target size.

    A region that does not fit into the image is scaled down until it does.

    Fields:
        area: minimum and maximum fraction of the image's area.
        ratio: minimum and maximum aspect ratio, width / height; drawn uniformly on a logarithmic scale.

    Example:
        >>> RandomResizedCrop(area=(0.35, 1.0)).box(60, 80, seed=(0, 1)).numpy()  # top, left, height, width
        array([ 6, 12, 45, 43], dtype=int32)

    Source: https://arxiv.org/abs/1409.4842
    """

    area: FractionRange = (0.35, 1.0)
    ratio: PositiveRange = (3 / 4, 4 / 3)

    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return box_of_area(height, width, draw(seed, 4), self.area, self.ratio)


@final
class RandomCrop(Crop):
    """Crops a region of fixed size at a random position, which is then resized to the target size.

    Fields:
        size: `(height, width)` in pixels of the original image, or a fraction of each of its sides, above 0 and at most
            1. In an image smaller than that the crop is limited to the image.
        square: the fraction is of the shorter side, and the crop a square, as with `random_crop_size` in keras-trainer.

    Example:
        >>> RandomCrop(size=0.5).box(60, 80, seed=(0, 1)).numpy()  # top, left, height, width
        array([ 2, 16, 30, 40], dtype=int32)
        >>> RandomCrop(size=(20, 30)).apply(np.zeros((60, 80, 3), np.uint8), seed=(0, 1)).shape
        (20, 30, 3)
    """

    size: tuple[int, int] | float = 0.875
    square: bool = False

    @field_validator("size")
    @classmethod
    def _in_pixels_or_a_fraction(cls, size: tuple[int, int] | float) -> tuple[int, int] | float:
        fits = min(size) >= 1 if isinstance(size, tuple) else 0 < size <= 1
        if not fits:
            shown = list(size) if isinstance(size, tuple) else size
            raise ConfigError(f"should be (height, width) in pixels, or a fraction above 0 and at most 1, got {shown}.")
        return size

    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        if isinstance(self.size, tuple):
            crop_height, crop_width = tf.minimum(self.size[0], height), tf.minimum(self.size[1], width)
        elif self.square:
            crop_height = crop_width = _fraction_of(tf.minimum(height, width), self.size)
        else:
            crop_height, crop_width = _fraction_of(height, self.size), _fraction_of(width, self.size)
        chance = draw(seed, 2)
        top, left = draw_integer(chance[0], height - crop_height), draw_integer(chance[1], width - crop_width)
        return tf.stack([top, left, crop_height, crop_width])


def box_of_area(
    height: tf.Tensor, width: tf.Tensor, chance: tf.Tensor, area: tuple[float, float], ratio: tuple[float, float]
) -> tf.Tensor:
    """int32 `(4,)`: top, left, height and width of a region of random area, aspect ratio and position.

    Args:
        height, width: int32 `()`, of the image.
        chance: float32 `(4,)`, uniform draws from 0 to 1.
        area: minimum and maximum fraction of the image's area.
        ratio: minimum and maximum width / height; drawn uniformly on a logarithmic scale.
    """
    import tensorflow as tf

    full_height, full_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    pixels = full_height * full_width * (area[0] + chance[0] * (area[1] - area[0]))
    log_ratio = tf.math.log(tf.constant(ratio))
    proportions = tf.exp(log_ratio[0] + chance[1] * (log_ratio[1] - log_ratio[0]))
    region_height, region_width = tf.sqrt(pixels / proportions), tf.sqrt(pixels * proportions)
    shrink = tf.minimum(1.0, tf.minimum(full_height / region_height, full_width / region_width))
    region_height = tf.clip_by_value(tf.cast(tf.round(region_height * shrink), tf.int32), 1, height)
    region_width = tf.clip_by_value(tf.cast(tf.round(region_width * shrink), tf.int32), 1, width)
    top, left = draw_integer(chance[2], height - region_height), draw_integer(chance[3], width - region_width)
    return tf.stack([top, left, region_height, region_width])


def _fraction_of(side: tf.Tensor, fraction: float) -> tf.Tensor:
    import tensorflow as tf

    return tf.maximum(1, tf.cast(tf.round(tf.cast(side, tf.float32) * fraction), tf.int32))
