"""What happens by chance to training images: stateless, on uint8, the same under `tf.data` and eagerly.

A new augmentation is a new final class here; it can be declared, saved and set from the command line at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from pydantic import field_validator

from model_trainer.config import Choice
from model_trainer.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Augmentation", "Crop", "RandomFlip", "RandomResizedCrop", "augment_image", "split_crop"]


class Augmentation(Choice):
    """One thing that happens to an image."""

    @abstractmethod
    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The changed image.

        Args:
            image: uint8 `(height, width, channels)`.
            seed: int32 `(2,)`; the same seed does the same.
        """


class Crop(Augmentation):
    """Chooses the part of an image that is decoded; comes first, because what is cut off need not be decoded."""

    @abstractmethod
    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """int32 `(4,)`: top, left, height and width of the part, in pixels of the upright image."""

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        top, left, height, width = tf.unstack(self.box(tf.shape(image)[0], tf.shape(image)[1], seed))
        return image[top : top + height, left : left + width]


@final
class RandomResizedCrop(Crop):
    """A part of random size and proportions, which is then resized to the target.

    Fields:
        area: least and largest share of the image's area.
        ratio: least and largest width / height; chosen evenly on a logarithmic scale.

    A part that would not fit is made smaller until it does. Source: https://arxiv.org/abs/1409.4842
    """

    area: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    @field_validator("area", "ratio")
    @classmethod
    def _from_least_to_largest(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not 0 < limits[0] <= limits[1]:
            raise ConfigError(f"should be two numbers above 0, the smaller first, got {list(limits)}.")
        return limits

    @field_validator("area")
    @classmethod
    def _a_share(cls, area: tuple[float, float]) -> tuple[float, float]:
        if area[1] > 1:
            raise ConfigError(f"should be shares of the image, at most 1, got {list(area)}.")
        return area

    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        chance = tf.random.stateless_uniform((4,), seed)
        full_height, full_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        area = full_height * full_width * (self.area[0] + chance[0] * (self.area[1] - self.area[0]))
        log_ratio = tf.math.log(tf.constant(self.ratio))
        ratio = tf.exp(log_ratio[0] + chance[1] * (log_ratio[1] - log_ratio[0]))
        crop_height, crop_width = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
        shrink = tf.minimum(1.0, tf.minimum(full_height / crop_height, full_width / crop_width))
        crop_height = tf.clip_by_value(tf.cast(tf.round(crop_height * shrink), tf.int32), 1, height)
        crop_width = tf.clip_by_value(tf.cast(tf.round(crop_width * shrink), tf.int32), 1, width)
        return tf.stack(
            [_place(height - crop_height, chance[2]), _place(width - crop_width, chance[3]), crop_height, crop_width]
        )


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

        chance = tf.random.stateless_uniform((2,), seed)
        if self.horizontal:
            image = tf.cond(chance[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
        if self.vertical:
            image = tf.cond(chance[1] < 0.5, lambda: tf.reverse(image, [0]), lambda: image)
        return image


def augment_image(image: tf.Tensor, augment: Sequence[Augmentation], seed: tf.Tensor) -> tf.Tensor:
    """Applies all of `augment` in order; each gets a seed of its own from `seed`, int32 `(2,)`."""
    import tensorflow as tf

    for position, augmentation in enumerate(augment, start=1):  # 0 is the crop's
        image = augmentation.apply(image, tf.random.experimental.stateless_fold_in(seed, position))
    return image


def split_crop(augment: Sequence[Augmentation]) -> tuple[Crop | None, tuple[Augmentation, ...]]:
    """The crop, which decoding takes over, and the rest.

    Raises:
        ConfigError: a crop stands anywhere but first.
    """
    crops = [position for position, augmentation in enumerate(augment) if isinstance(augmentation, Crop)]
    if any(crops):
        raise ConfigError(
            f"has {type(augment[crops[-1]]).__name__} at position {crops[-1]}; one crop may stand there, and first."
        )
    first = augment[0] if augment else None
    return (first, tuple(augment[1:])) if isinstance(first, Crop) else (None, tuple(augment))


def _place(room: tf.Tensor, chance: tf.Tensor) -> tf.Tensor:
    """A whole number from 0 to `room`, each equally likely."""
    import tensorflow as tf

    place = tf.cast(tf.floor(chance * tf.cast(room + 1, tf.float32)), tf.int32)
    return tf.minimum(place, room)  # chance rounds up to 1 where there are very many places
