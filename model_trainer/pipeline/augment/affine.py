"""Affine transformations of images: rotation, zoom, shear and shift, their composition, and how points move with them.

A matrix here is what resampling needs: float32 `(3, 3)`, from coordinates in the result back to coordinates in the
image. Coordinates are (x, y, 1) in pixels, x to the right and y down from the center of the first pixel. `transform_of`
converts a matrix to the transform of points. All matrices except a shift keep the image's center fixed. Consecutive
augmentations are multiplied into one matrix, so that pixels are interpolated once; pixels from outside the image are
filled.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.chance import Number
from model_trainer.pipeline.augment.pixels import rounded, size_of
from model_trainer.pipeline.augment.transform import compose, make_matrix

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "Affine",
    "FillMode",
    "Interpolation",
    "Resampling",
    "apply_affine",
    "resample",
    "rotation",
    "shear",
    "shift",
    "sides",
    "transform_of",
    "zoom",
]

FillMode = Literal["constant", "nearest", "reflect", "wrap"]
Interpolation = Literal["nearest", "bilinear"]


class Resampling(NamedTuple):
    """How an image is resampled.

    Attributes:
        fill_mode: pixels outside the image, named as in Keras: "constant" is `fill_value`, "nearest" the closest pixel
            (aaa|abcd|ddd), "reflect" the mirrored image (cba|abcd|dcb), "wrap" the repeated image (bcd|abcd|abc).
        fill_value: 0 to 255, for all channels, including alpha.
        interpolation: "bilinear" interpolates between the four pixels around a point, "nearest" takes the closest.
    """

    fill_mode: FillMode = "nearest"
    fill_value: int = 0
    interpolation: Interpolation = "bilinear"


class Affine(Augmentation):
    """Base class of augmentations that move pixels by an affine matrix.

    Fields:
        fill_mode, fill_value, interpolation: see `Resampling`.
    """

    fill_mode: FillMode = "nearest"
    fill_value: int = Field(0, ge=0, le=255)
    interpolation: Interpolation = "bilinear"

    @property
    def resampling(self) -> Resampling:
        return Resampling(self.fill_mode, self.fill_value, self.interpolation)

    @abstractmethod
    def matrix(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        """float32 `(3, 3)`: from coordinates in the result to coordinates in the image; see `resample`.

        Args:
            height, width: float32 `()`, of the image, in pixels.
            seed: int32 `(2,)`.
        """

    def apply(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return apply_affine(image, [(self, seed)])

    def transform(self, height: Number, width: Number, seed: tf.Tensor) -> tf.Tensor:
        return transform_of(self.matrix(height, width, seed))


def apply_affine(image: tf.Tensor, steps: Sequence[tuple[Affine, tf.Tensor]]) -> tf.Tensor:
    """Applies all `steps`, each with its seed, in order, with one resampling, whose options are those of the first."""
    import tensorflow as tf

    height, width = sides(image)
    matrix = None
    for affine, seed in steps:
        # Coordinates are traced back from the result, so the last step comes last in the product.
        own = affine.matrix(height, width, seed)
        matrix = own if matrix is None else tf.matmul(matrix, own)
    return resample(image, matrix, steps[0][0].resampling)


def transform_of(matrix: tf.Tensor) -> tf.Tensor:
    """float32 `(3, 3)`: the transform of points for an image that was resampled by `matrix`; see `augment.transform`.

    A singular matrix, such as a shear of 45 degrees both ways, collapses the image to a line: all points become (0, 0),
    and all boxes empty.
    """
    import tensorflow as tf

    first, second, third = tf.unstack(matrix)
    # tf.linalg.inv would stop the pipeline if there is no inverse.
    cross = tf.linalg.cross
    adjugate = tf.stack([cross(second, third), cross(third, first), cross(first, second)], axis=1)
    inverse = tf.math.divide_no_nan(adjugate, tf.reduce_sum(first * cross(second, third)))
    # The origin of a matrix is the first pixel's center, that of a transform its outer corner.
    to_center, to_corner = make_matrix(1.0, 0.0, -0.5, 0.0, 1.0, -0.5), make_matrix(1.0, 0.0, 0.5, 0.0, 1.0, 0.5)
    return compose(to_center, inverse, to_corner)


def sides(image: tf.Tensor) -> tuple[Number, Number]:
    """`(height, width)` in pixels, as floats."""
    import tensorflow as tf

    height, width = (float(side) if isinstance(side, int) else tf.cast(side, tf.float32) for side in size_of(image))
    return height, width


def rotation(degrees: Number, height: Number, width: Number) -> tf.Tensor:
    """The matrix that rotates an image counter-clockwise about its center."""
    import tensorflow as tf

    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _about_center(cos, -sin, sin, cos, height, width)


def zoom(down: Number, right: Number, height: Number, width: Number) -> tf.Tensor:
    """The matrix that shows `down` times an image's height and `right` times its width: above 1 the content shrinks."""
    return _about_center(right, 0.0, 0.0, down, height, width)


def shear(down: Number, right: Number, height: Number, width: Number) -> tf.Tensor:
    """The matrix of a shear.

    It moves each column down by `down` times, and each row right by `right` times, its distance from the center.
    """
    return _about_center(1.0, -right, -down, 1.0, height, width)


def shift(down: Number, right: Number) -> tf.Tensor:
    """The matrix that translates an image by `down` and `right` pixels."""
    return make_matrix(1.0, 0.0, -right, 0.0, 1.0, -down)


def _about_center(a: Number, b: Number, c: Number, d: Number, height: Number, width: Number) -> tf.Tensor:
    x, y = (width - 1) / 2, (height - 1) / 2
    return make_matrix(a, b, x - a * x - b * y, c, d, y - c * x - d * y)


def resample(image: tf.Tensor, matrix: tf.Tensor, resampling: Resampling) -> tf.Tensor:
    """Resamples an image: pixel (x, y) of the result is `image` at `matrix` times (x, y, 1).

    Args:
        image: uint8 `(height, width, channels)`.
        matrix: float32 `(3, 3)`, from coordinates in the result to coordinates in `image`, in pixels; integers are the
            centers of pixels, (0, 0) that of the first.
        resampling: interpolation and fill mode.

    Returns:
        uint8 of the same shape. "bilinear" computes in float32 and rounds once, "nearest" copies pixels.
    """
    import tensorflow as tf

    if resampling.fill_mode == "wrap":
        return tf.ensure_shape(_resample_wrapped(image, matrix, resampling.interpolation), image.shape)
    is_exact = resampling.interpolation == "nearest"
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        # With uint8 the kernel would truncate interpolated values.
        images=(image if is_exact else tf.cast(image, tf.float32))[None],
        transforms=tf.reshape(matrix, (1, 9))[:, :8],
        output_shape=size_of(image),
        fill_value=float(resampling.fill_value),
        interpolation=resampling.interpolation.upper(),
        fill_mode=resampling.fill_mode.upper(),
    )[0]
    return tf.ensure_shape(moved if is_exact else rounded(moved), image.shape)


def _resample_wrapped(image: tf.Tensor, matrix: tf.Tensor, interpolation: Interpolation) -> tf.Tensor:
    """`resample` with fill mode "wrap"; TensorFlow's kernel is wrong more than one side length outside the image."""
    import tensorflow as tf

    height, width = size_of(image)
    y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    points = tf.stack([x, y, tf.ones_like(x)], axis=-1)
    from_x, from_y = tf.unstack(tf.tensordot(tf.cast(points, tf.float32), matrix[:2], [[2], [1]]), axis=-1)
    pixels = tf.reshape(image, (-1, image.shape[-1]))

    def pixel_at(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        row, column = tf.cast(y, tf.int32) % height, tf.cast(x, tf.int32) % width
        return tf.gather(pixels, row * width + column)

    if interpolation == "nearest":
        return pixel_at(tf.floor(from_y + 0.5), tf.floor(from_x + 0.5))
    top, left = tf.floor(from_y), tf.floor(from_x)
    down, right = (from_y - top)[..., None], (from_x - left)[..., None]
    corners = [
        tf.cast(pixel_at(top + next_row, left + next_column), tf.float32)
        * (down if next_row else 1 - down)
        * (right if next_column else 1 - right)
        for next_row, next_column in itertools.product((0, 1), repeat=2)
    ]
    return rounded(tf.add_n(corners))
