"""Arithmetic on pixel values: which channels are colors, and how results are rounded to uint8."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["LUMINANCE", "has_color", "on_colors", "rounded", "size_of"]

# Weights of red, green and blue in gray: ITU-R 601 in 65536ths, as Pillow's mode "L". A sum of 8-bit values times these
# has at most 24 bits, so float32 holds it exactly, in any order of summation.
LUMINANCE = (19595 / 65536, 38470 / 65536, 7471 / 65536)


def size_of(image: tf.Tensor) -> tuple[tf.Tensor | int, tf.Tensor | int]:
    """`(height, width)`: numbers if they are known when the graph is traced, which then has far fewer nodes."""
    import tensorflow as tf

    height, width = image.shape[:2]
    return tf.shape(image)[0] if height is None else height, tf.shape(image)[1] if width is None else width


def has_color(image: tf.Tensor) -> bool:
    """False for an image of one channel."""
    return bool(image.shape[-1] != 1)


def on_colors(image: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Applies `change` to all channels except alpha."""
    import tensorflow as tf

    if image.shape[-1] != 4:
        return change(image)
    return tf.concat([change(image[..., :3]), image[..., 3:]], axis=-1)


def rounded(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 from float32: clipped to 0 to 255 and rounded half up. Augmentations round nowhere else."""
    import tensorflow as tf

    return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0) + 0.5, tf.uint8)
