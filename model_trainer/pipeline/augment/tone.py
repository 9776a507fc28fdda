"""Tonal operations of the augmentation policies, exact as in Pillow's `ImageOps`. All keep alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_trainer.pipeline.augment.pixels import on_colors, rounded

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["auto_contrast", "equalize", "posterize", "solarize"]


def posterize(image: tf.Tensor, lost_bits: tf.Tensor) -> tf.Tensor:
    """Clears the lowest `lost_bits`, uint8 0 to 7, of each value."""
    import tensorflow as tf

    mask = tf.bitwise.left_shift(tf.constant(255, tf.uint8), lost_bits)
    return on_colors(image, lambda colors: tf.bitwise.bitwise_and(colors, mask))


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts all values of at least `threshold`, int32 0 to 256."""
    import tensorflow as tf

    min_value = tf.cast(tf.minimum(threshold, 255), tf.uint8)
    inverting = tf.where(threshold < 256, tf.constant(255, tf.uint8), tf.constant(0, tf.uint8))
    return on_colors(  # all in uint8: tf.where takes twice as long
        image,
        lambda colors: tf.bitwise.bitwise_xor(colors, tf.cast(colors >= min_value, tf.uint8) * inverting),
    )


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel linearly to 0 to 255, rounded half up; a constant channel stays unchanged."""
    import tensorflow as tf

    def change(colors: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(colors, tf.float32)
        # One axis after the other is faster than both at once.
        low = tf.reduce_min(tf.reduce_min(pixels, axis=0), axis=0)
        high = tf.reduce_max(tf.reduce_max(pixels, axis=0), axis=0)
        is_flat = low == high
        scale = tf.where(is_flat, 1.0, 255 / tf.where(is_flat, 1.0, high - low))
        return rounded((pixels - tf.where(is_flat, 0.0, low)) * scale)

    return on_colors(image, change)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel, in integer arithmetic as Pillow does."""
    import tensorflow as tf

    def change(colors: tf.Tensor) -> tf.Tensor:
        channels = colors.shape[-1]
        bins = tf.cast(colors, tf.int32) + 256 * tf.range(channels)
        counts = tf.raw_ops.DenseBincount(
            input=tf.reshape(bins, [-1]), size=256 * channels, weights=tf.constant([], tf.int32)
        )
        counts = tf.reshape(counts, (channels, 256))
        # The highest value's count is left out: everything below it is spread over 255 steps.
        highest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1, keepdims=True)
        step = (tf.reduce_sum(counts, axis=1, keepdims=True) - tf.gather(counts, highest, axis=1, batch_dims=1)) // 255
        below = tf.cumsum(counts, axis=1, exclusive=True)
        spread = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
        table = tf.cast(tf.where(step == 0, tf.range(256), spread), tf.uint8)
        return tf.gather(tf.reshape(table, [-1]), bins)

    return on_colors(image, change)
