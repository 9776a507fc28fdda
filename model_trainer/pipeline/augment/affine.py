"""What moves pixels by an affine matrix. Several in a row become one matrix, so that pixels are interpolated once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number
from model_trainer.pipeline.augment.matrices import sides
from model_trainer.pipeline.augment.resample import FillMode, Interpolation, Resampling, resample

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Affine", "apply_affine"]


class Affine(Augmentation):
    """Moves pixels by a matrix.

    Fields:
        fill_mode: outside the image, in Keras' words: "constant" is `fill_value`, "nearest" the closest pixel
            (aaa|abcd|ddd), "reflect" the mirrored image (cba|abcd|dcb), "wrap" the image again (bcd|abcd|abc).
        fill_value: 0 to 255, for all channels, alpha too.
        interpolation: "bilinear" weighs the four pixels around a place, "nearest" takes the closest.
    """

    fill_mode: FillMode = "nearest"
    fill_value: int = Field(0, ge=0, le=255)
    interpolation: Interpolation = "bilinear"

    @property
    def resampling(self) -> Resampling:
        return Resampling(self.fill_mode, self.fill_value, self.interpolation)

    @abstractmethod
    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        """float32 `(3, 3)`: from places in the result to places in the image; see `resample`.

        Args:
            height, width: float32 `()`, of the image.
            seed: int32 `(2,)`.
        """

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return apply_affine(image, [(self, seed)])


def apply_affine(image: tf.Tensor, steps: Sequence[tuple[Affine, tf.Tensor]]) -> tf.Tensor:
    """`image` after all `steps`, each with its seed, in order; all of them fill as the first does."""
    import tensorflow as tf

    height, width = sides(image)
    matrix = None
    for affine, seed in steps:
        # Places are followed back from the result, so the last step comes last in the product.
        own = affine.matrix(height, width, seed)
        matrix = own if matrix is None else tf.matmul(matrix, own)
    return resample(image, matrix, steps[0][0].resampling)
