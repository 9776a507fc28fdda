"""Base classes of augmentations: those of one image, crops, and those of a batch.

A new augmentation is a new final class in one of the files in this folder; it can then be declared, saved as JSON and
set from the command line. All are stateless and work on uint8, with the same result inside `tf.data` and eagerly.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from model_trainer.config import Choice
from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment.chance import Number
from model_trainer.pipeline.augment.transform import stretch

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["MIN_WEIGHT", "Augmentation", "BatchAugmentation", "Crop"]

# The weight of an image whose declared weight is 0. It counts as an example, unlike an image that cannot be read, whose
# weight is 0; neither counts in losses and metrics.
MIN_WEIGHT = 1e-30


class Augmentation(Choice):
    """An augmentation of one image. Augmentations that move pixels extend `Affine`, or override `transform`."""

    @abstractmethod
    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image.

        Args:
            image: uint8 `(height, width, channels)`: gray with 1 channel, RGB with 3, RGB and alpha with 4. Changes of
                color keep alpha. The number of channels must be known when the graph is traced.
            seed: int32 `(2,)`; the same seed gives the same result.

        Returns:
            uint8 of the same shape, except for a crop.
        """

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        """float32 `(3, 3)`: where `apply` with the same seed moves points, see `augment.transform`; here the identity.

        It is separate from `apply`, so that images without boxes do not pay for it.

        Args:
            height, width: float32 `()`, of the image before the augmentation.
            seed: int32 `(2,)`.

        Example:
            >>> from model_trainer.pipeline.augment import move_boxes
            >>> image = RandomFlip().apply(np.zeros((20, 40, 3), np.uint8), seed=(0, 1))  # mirrored by this seed
            >>> transform = RandomFlip().transform(20.0, 40.0, seed=(0, 1))
            >>> move_boxes(np.array([[0, 4, 10, 14]], np.float32), transform, 20, 40).numpy()
            array([[30.,  4., 40., 14.]], dtype=float32)
        """
        import tensorflow as tf

        return tf.eye(3)


class Crop(Augmentation):
    """Base class of random crops. A crop comes first, because only the cropped region needs to be decoded."""

    @abstractmethod
    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """int32 `(4,)`: top, left, height and width of the crop, in pixels of the upright image.

        Args:
            height, width: int32 `()`, of the image.
            seed: int32 `(2,)`; the same seed gives the same crop.
        """

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        top, left, height, width = tf.unstack(self.box(tf.shape(image)[0], tf.shape(image)[1], seed))
        return image[top : top + height, left : left + width]

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        box = self.box(tf.cast(height, tf.int32), tf.cast(width, tf.int32), seed)
        return stretch(tf.unstack(box), (0, 0, box[2], box[3]))


class BatchAugmentation(Augmentation):
    """Base class of augmentations that mix the images and targets of a batch. They come last."""

    @abstractmethod
    def apply_to_batch(
        self, images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor, first: tf.Tensor | int = 0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes images and targets of a batch.

        Args:
            images: uint8 `(batch, height, width, channels)`.
            targets: float32 `(batch, num_classes)`.
            weights: float32 `(batch,)`; an image whose weight is at most `MIN_WEIGHT`, such as an unreadable one, is
                not mixed.
            seed: int32 `(2,)`; the same seed gives the same result.
            first: int32 `()`, even: the row of the first image in the global batch, if these images are a shard of it.

        Returns:
            `(images, targets)` with the shapes and dtypes of the input.
        """

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Raises ConfigError: one image has no other to be mixed with."""
        raise ConfigError(f"{type(self).__name__} mixes the images of a batch; it cannot change a single one.")
