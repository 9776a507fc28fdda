"""Affine matrices: float32 `(3, 3)`, from places in the result back to places in the image, as `resample` takes them.

Places are (x, y, 1) in pixels, counted to the right and down. All but a shift leave the image's centre in place.
Heights and widths are those of `sides`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from model_trainer.pipeline.augment.chance import Number
from model_trainer.pipeline.augment.pixels import size_of

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["rotation", "shear", "shift", "sides", "zoom"]


def sides(image: tf.Tensor) -> tuple[Number, Number]:
    """`(height, width)` in pixels, as numbers with a fraction."""
    import tensorflow as tf

    height, width = (float(side) if isinstance(side, int) else tf.cast(side, tf.float32) for side in size_of(image))
    return height, width


def rotation(degrees: Number, height: Number, width: Number) -> tf.Tensor:
    """Turns the image counter-clockwise."""
    import tensorflow as tf

    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _about_centre(cos, -sin, sin, cos, height, width)


def zoom(down: Number, right: Number, height: Number, width: Number) -> tf.Tensor:
    """Shows `down` times the image's height and `right` times its width: above 1 everything gets smaller."""
    return _about_centre(right, 0.0, 0.0, down, height, width)


def shear(down: Number, right: Number, height: Number, width: Number) -> tf.Tensor:
    """Moves a column by `down` times its distance from the centre, a row by `right` times its own."""
    return _about_centre(1.0, -right, -down, 1.0, height, width)


def shift(down: Number, right: Number) -> tf.Tensor:
    """Moves the image by so many pixels."""
    return _matrix(1.0, 0.0, -right, 0.0, 1.0, -down)


def _about_centre(a: Number, b: Number, c: Number, d: Number, height: Number, width: Number) -> tf.Tensor:
    x, y = (width - 1) / 2, (height - 1) / 2
    return _matrix(a, b, x - a * x - b * y, c, d, y - c * x - d * y)


def _matrix(*upper_rows: Number) -> tf.Tensor:
    import tensorflow as tf

    return tf.reshape(tf.stack([*upper_rows, 0.0, 0.0, 1.0]), (3, 3))
