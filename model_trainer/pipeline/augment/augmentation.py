"""The family of augmentations: what happens to one image, which part of it is decoded, what happens to a batch.

A new augmentation is a new final class in one of the files beside; it can be declared, saved and set from the command
line at once. All are stateless and work on uint8, the same under `tf.data` and eagerly.
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

# Of an image that is declared to weigh nothing. It counts as an example, other than one that cannot be read, whose
# weight is 0; otherwise both count nowhere.
MIN_WEIGHT = 1e-30


class Augmentation(Choice):
    """One thing that happens to an image. What moves pixels extends `Affine`, or overrides `transform`."""

    @abstractmethod
    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The changed image, uint8 and of the same shape (but for a crop).

        Args:
            image: uint8 `(height, width, channels)`; 1 channel is grey, 3 are RGB, 4 RGB and alpha, which changes of
                colour leave alone. How many channels there are must be known when the graph is built.
            seed: int32 `(2,)`; the same seed does the same.
        """

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        """float32 `(3, 3)`: where `apply` with the same seed moves points, see `augment.transform`; here the identity.

        It is not part of `apply`, so that images without boxes do not pay for it.

        Args:
            height, width: float32 `()`, of the image before.
            seed: int32 `(2,)`.

        Example:
            >>> image = augmentation.apply(image, seed)
            >>> boxes = move_boxes(boxes, augmentation.transform(height, width, seed), height, width)
        """
        import tensorflow as tf

        return tf.eye(3)


class Crop(Augmentation):
    """Chooses the part of an image that is decoded; comes first, because what is cut off need not be decoded."""

    @abstractmethod
    def box(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """int32 `(4,)`: top, left, height and width of the part, in pixels of the upright image."""

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        top, left, height, width = tf.unstack(self.box(tf.shape(image)[0], tf.shape(image)[1], seed))
        return image[top : top + height, left : left + width]

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        box = self.box(tf.cast(height, tf.int32), tf.cast(width, tf.int32), seed)
        return stretch(tf.unstack(box), (0, 0, box[2], box[3]))


class BatchAugmentation(Augmentation):
    """One thing that happens to the images of a batch together, and to their targets; comes last."""

    @abstractmethod
    def apply_to_batch(
        self, images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor, first: tf.Tensor | int = 0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The changed `(images, targets)`, with the shapes and dtypes that came in.

        Args:
            images: uint8 `(batch, height, width, channels)`.
            targets: float32 `(batch, num_classes)`.
            weights: float32 `(batch,)`; an image of at most `MIN_WEIGHT`, such as an unreadable one, is mixed with no
                other.
            seed: int32 `(2,)`; the same seed does the same.
            first: int32 `()`, even: the place of the first image in the whole batch, of which these are a part.
        """

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Raises ConfigError: one image has no other to be mixed with."""
        raise ConfigError(f"{type(self).__name__} mixes the images of a batch; it cannot change a single one.")
