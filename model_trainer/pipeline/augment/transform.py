"""Transforms of points and boxes that follow the geometric augmentation of their image.

A transform is float32 `(3, 3)` with a last row of 0, 0, 1. It maps (x, y, 1), a point of the original image, to the
point of the augmented one. x counts pixels to the right, y down, both from the outer corner of the first pixel, as the
boxes of detection do: that pixel reaches from 0 to 1, its center is (0.5, 0.5), and the whole image is the box
(0, 0, width, height).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model_trainer.pipeline.augment.chance import Number

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["compose", "make_matrix", "move_boxes", "move_points", "stretch"]


def move_points(points: tf.Tensor, transform: tf.Tensor) -> tf.Tensor:
    """Transforms points; they may lie outside the image, before and after.

    Args:
        points: float32 `(..., num_points, 2)`: x, y in pixels.
        transform: float32 `(3, 3)`, or one for each set of points, `(..., 3, 3)`.

    Returns:
        float32 `(..., num_points, 2)`.

    Example:
        >>> flip = RandomFlip().transform(20.0, 40.0, seed=(0, 1))  # of an image 40 pixels wide, flipped by this seed
        >>> move_points(np.array([[0, 7]], np.float32), flip).numpy()
        array([[40.,  7.]], dtype=float32)
    """
    import tensorflow as tf

    return tf.matmul(points, transform[..., :2, :2], transpose_b=True) + transform[..., None, :2, 2]


def move_boxes(boxes: tf.Tensor, transform: tf.Tensor, height: Number, width: Number) -> tf.Tensor:
    """Transforms boxes: the smallest upright box around the four moved corners of each, clipped to the image.

    After a rotation by other than multiples of 90 degrees a box is larger than necessary, because only its corners are
    known. A box that leaves the image keeps its row, with a width or height of 0.

    Args:
        boxes: float32 `(..., num_boxes, 4)`: left, top, right, bottom in pixels.
        transform: float32 `(3, 3)`, or one for each set of boxes, `(..., 3, 3)`.
        height, width: of the image after the transform: numbers or scalar tensors of any dtype.

    Returns:
        float32 `(..., num_boxes, 4)`.

    Example:
        >>> half = stretch((0, 0, 20, 40), (0, 0, 10, 20))  # an image of 20 by 40 pixels becomes one of 10 by 20
        >>> move_boxes(np.array([[30, 4, 50, 8]], np.float32), half, 10, 20).numpy()
        array([[15.,  2., 20.,  4.]], dtype=float32)
    """
    import tensorflow as tf

    left, top, right, bottom = tf.unstack(boxes, axis=-1)
    corners = [tf.stack(corner, axis=-1) for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
    moved = move_points(tf.stack(corners, axis=-2), transform[..., None, :, :])
    hull = tf.concat([tf.reduce_min(moved, axis=-2), tf.reduce_max(moved, axis=-2)], axis=-1)
    return tf.clip_by_value(hull, 0.0, tf.cast(tf.stack([width, height, width, height]), tf.float32))


def compose(*transforms: tf.Tensor) -> tf.Tensor:
    """One transform for several in a row, the first one applied first; the identity if there are none.

    Example:
        >>> half, back = stretch((0, 0, 20, 40), (0, 0, 10, 20)), stretch((0, 0, 10, 20), (0, 0, 20, 40))
        >>> bool(np.all(compose(half, back) == np.eye(3)))
        True
    """
    import tensorflow as tf

    composed = None
    for transform in transforms:
        composed = transform if composed is None else tf.matmul(transform, composed)
    return tf.eye(3) if composed is None else composed


def stretch(source: Sequence[Number], target: Sequence[Number]) -> tf.Tensor:
    """The transform that maps a region of one image to a region of another.

    Args:
        source, target: top, left, height and width in pixels, of any dtype; neither side of `source` is 0.

    Example:
        >>> stretch((2, 10, 20, 40), (0, 0, 10, 20)).numpy()  # (10, 2) becomes (0, 0), and (50, 22) becomes (20, 10)
        array([[ 0.5,  0. , -5. ],
               [ 0. ,  0.5, -1. ],
               [ 0. ,  0. ,  1. ]], dtype=float32)
    """
    import tensorflow as tf

    top, left, height, width = (tf.cast(edge, tf.float32) for edge in source)
    new_top, new_left, new_height, new_width = (tf.cast(edge, tf.float32) for edge in target)
    right, down = new_width / width, new_height / height
    return make_matrix(right, 0.0, new_left - right * left, 0.0, down, new_top - down * top)


def make_matrix(*upper_rows: Number) -> tf.Tensor:
    """float32 `(3, 3)` from its two upper rows, six numbers; the last row is 0, 0, 1."""
    import tensorflow as tf

    return tf.reshape(tf.stack([*upper_rows, 0.0, 0.0, 1.0]), (3, 3))
