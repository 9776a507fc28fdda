"""Augmentation policies: operations drawn at random from a list. Only those that are drawn are computed.

The list and its maximum strengths are those of the papers as implemented in torchvision, with two differences: shear
keeps the image's center fixed, and at strength 0 solarize inverts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, final

from pydantic import Field

from model_trainer.pipeline.augment import affine
from model_trainer.pipeline.augment.affine import FillMode, Interpolation, Resampling, resample
from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number, draw, draw_integer
from model_trainer.pipeline.augment.color import adjust_brightness, adjust_contrast, adjust_saturation
from model_trainer.pipeline.augment.quality import adjust_sharpness
from model_trainer.pipeline.augment.tone import auto_contrast, equalize, posterize, solarize
from model_trainer.pipeline.augment.transform import compose

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Limits", "RandAugment", "TrivialAugment", "operations"]

NUM_OPERATIONS = 14
MAX_MAGNITUDE = 30  # torchvision's 31 steps, the first of which changes next to nothing

Matrix: TypeAlias = "Callable[[Number, Number], tf.Tensor]"  # from an image's height and width


@final
class RandAugment(Augmentation):
    """Applies `num_ops` operations in a row, each drawn from 14, all with the same strength.

    Fields:
        num_ops: operations per image.
        magnitude: strength from 0 to 30, torchvision's scale; the paper's 0 to 10 is a third of it.
        fill_mode, fill_value, interpolation: of rotation, shift and shear; see `Resampling`.

    Example:
        >>> RandAugment(num_ops=2, magnitude=9).apply(np.zeros((32, 32, 3), np.uint8), seed=(0, 1)).shape
        TensorShape([32, 32, 3])

    Source: https://arxiv.org/abs/1909.13719
    """

    num_ops: int = Field(2, ge=1)
    magnitude: int = Field(9, ge=0, le=MAX_MAGNITUDE)
    fill_mode: FillMode = "constant"
    fill_value: int = Field(0, ge=0, le=255)
    interpolation: Interpolation = "nearest"

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        resampling = Resampling(self.fill_mode, self.fill_value, self.interpolation)
        for operation in self._draw_operations(*affine.sides(image), seed):
            image = _apply_one(image, operation, resampling)
        return image

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        drawn_operations = self._draw_operations(height, width, seed)
        return compose(*(_transform_of_one(height, width, operation) for operation in drawn_operations))

    def _draw_operations(self, height: Number, width: Number, seed: tf.Tensor) -> list[_DrawnOperation]:
        import tensorflow as tf

        # The paper shifts images of 331 pixels by up to 150.
        limits = Limits(shear=0.3, shift=(150 / 331 * height, 150 / 331 * width), degrees=30.0, factor=0.9, lost_bits=4)
        strength = tf.constant(self.magnitude / MAX_MAGNITUDE)
        chance = draw(seed, self.num_ops, 2)
        return [_DrawnOperation(strength, chance[number], limits) for number in range(self.num_ops)]


@final
class TrivialAugment(Augmentation):
    """Applies one operation, drawn from 14, with a strength drawn uniformly from 31 steps, up to very strong ("wide").

    Fields:
        fill_mode, fill_value, interpolation: of rotation, shift and shear; see `Resampling`.

    Example:
        >>> TrivialAugment().apply(np.zeros((32, 32, 3), np.uint8), seed=(0, 1)).shape
        TensorShape([32, 32, 3])

    Source: https://arxiv.org/abs/2103.10158
    """

    fill_mode: FillMode = "constant"
    fill_value: int = Field(0, ge=0, le=255)
    interpolation: Interpolation = "nearest"

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        resampling = Resampling(self.fill_mode, self.fill_value, self.interpolation)
        return _apply_one(image, self._draw_operation(seed), resampling)

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        return _transform_of_one(height, width, self._draw_operation(seed))

    def _draw_operation(self, seed: tf.Tensor) -> _DrawnOperation:
        import tensorflow as tf

        limits = Limits(shear=0.99, shift=(32.0, 32.0), degrees=135.0, factor=0.99, lost_bits=6)
        chance = draw(seed, 3)
        strength = tf.cast(draw_integer(chance[2], MAX_MAGNITUDE), tf.float32) / MAX_MAGNITUDE
        return _DrawnOperation(strength, chance[:2], limits)


class Limits(NamedTuple):
    """The maximum of each operation, at strength 1.

    Attributes:
        shear: tangent of the shear angle.
        shift: pixels, down and to the right.
        degrees: of rotation.
        factor: brightness, contrast, saturation and sharpness are multiplied by 1 - factor to 1 + factor.
        lost_bits: bits that posterize clears in each 8-bit value.
    """

    shear: float
    shift: tuple[Number, Number]
    degrees: float
    factor: float
    lost_bits: int


class _DrawnOperation(NamedTuple):
    """A drawn operation.

    Attributes:
        strength: float32 `()`, 0 to 1.
        chance: float32 `(2,)`: uniform draws for the operation and its direction.
        limits: the maximum of each operation.
    """

    strength: tf.Tensor
    chance: tf.Tensor
    limits: Limits

    @property
    def number(self) -> tf.Tensor:
        """int32 `()`: index of the operation."""
        return draw_integer(self.chance[0], NUM_OPERATIONS - 1)

    @property
    def sign(self) -> tf.Tensor:
        """float32 `()`: 1 or -1."""
        import tensorflow as tf

        return tf.where(self.chance[1] < 0.5, 1.0, -1.0)


def operations(
    image: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor, limits: Limits, resampling: Resampling
) -> list[Callable[[], tf.Tensor]]:
    """The 14 operations on `image`, as functions; each is computed only when it is called.

    Args:
        image: uint8 `(height, width, channels)`.
        strength: float32 `()`, 0 to 1.
        sign: float32 `()`, 1 or -1: the direction of operations that have two.
        limits: the maximum of each operation.
        resampling: of the operations that move pixels.
    """
    import tensorflow as tf

    signed = sign * strength

    def move(matrix: Matrix) -> Callable[[], tf.Tensor]:
        return lambda: resample(image, matrix(*affine.sides(image)), resampling)

    return [
        lambda: image,
        *map(move, _matrices(signed, limits)),  # the only ones that move points
        lambda: adjust_brightness(image, 1 + signed * limits.factor),
        lambda: adjust_contrast(image, 1 + signed * limits.factor),
        lambda: adjust_saturation(image, 1 + signed * limits.factor),
        lambda: adjust_sharpness(image, 1 + signed * limits.factor),
        lambda: posterize(image, tf.cast(tf.round(strength * limits.lost_bits), tf.uint8)),
        lambda: solarize(image, tf.cast(tf.round(256 * (1 - strength)), tf.int32)),
        lambda: auto_contrast(image),
        lambda: equalize(image),
    ]


def _matrices(signed: tf.Tensor, limits: Limits) -> list[Matrix]:
    """The operations that move pixels, as functions from height and width to a matrix, see `affine`.

    Args:
        signed: float32 `()`, -1 to 1: strength and direction.
        limits: the maximum of each operation.
    """
    return [
        lambda height, width: affine.shear(signed * limits.shear, 0.0, height, width),
        lambda height, width: affine.shear(0.0, signed * limits.shear, height, width),
        lambda height, width: affine.shift(signed * limits.shift[0], 0.0),
        lambda height, width: affine.shift(0.0, signed * limits.shift[1]),
        lambda height, width: affine.rotation(signed * limits.degrees, height, width),
    ]


def _apply_one(image: tf.Tensor, operation: _DrawnOperation, resampling: Resampling) -> tf.Tensor:
    import tensorflow as tf

    choices = operations(image, operation.strength, operation.sign, operation.limits, resampling)
    return tf.ensure_shape(tf.switch_case(operation.number, choices), image.shape)


def _transform_of_one(height: Number, width: Number, operation: _DrawnOperation) -> tf.Tensor:
    import tensorflow as tf

    def move(matrix: Matrix) -> Callable[[], tf.Tensor]:
        return lambda: affine.transform_of(matrix(height, width))

    def identity() -> tf.Tensor:
        return tf.eye(3)

    moves = map(move, _matrices(operation.sign * operation.strength, operation.limits))
    return tf.switch_case(operation.number, [identity, *moves], default=identity)
