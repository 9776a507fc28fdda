"""Resizes images to `target_size`, in the same way for training, validation, prediction and serving."""

from __future__ import annotations

import tensorflow as tf

from model_trainer.specs import ModelSpec

__all__ = ["fit_box", "placed_box", "resize_image"]


def fit_box(height: tf.Tensor, width: tf.Tensor, spec: ModelSpec) -> tf.Tensor:
    """int32 `(4,)` top, left, height, width: the region of an image that the spec's `resize` keeps.

    "crop" keeps the largest centered region with the aspect ratio of the target, "squash" and "pad" the whole image.

    Args:
        height, width: int32 `()`, of the image.
        spec: the target size and the resize method.
    """
    if spec.resize != "crop":
        return tf.stack([0, 0, height, width])
    target_height, target_width, _ = spec.target_size
    scale = tf.minimum(
        tf.cast(height, tf.float64) / target_height, tf.cast(width, tf.float64) / target_width
    )  # image pixels per target pixel
    crop_height = tf.clip_by_value(tf.cast(tf.round(target_height * scale), tf.int32), 1, height)
    crop_width = tf.clip_by_value(tf.cast(tf.round(target_width * scale), tf.int32), 1, width)
    return tf.stack([(height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width])


def resize_image(image: tf.Tensor, spec: ModelSpec, *, keep_proportions: bool) -> tf.Tensor:
    """Resizes an image to the spec's target size.

    Args:
        image: uint8 `(height, width, channels)`.
        spec: the target size, interpolation and background.
        keep_proportions: keep the aspect ratio and pad with the background, instead of distorting.

    Returns:
        uint8 `(target_height, target_width, channels)`.
    """
    target_height, target_width, _ = spec.target_size
    if not keep_proportions:
        return _interpolated(image, target_height, target_width, spec)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    top, left, new_height, new_width = placed_box(height, width, spec, keep_proportions=True)
    scaled = _interpolated(image, new_height, new_width, spec)
    # The color is subtracted and added again, because tf.pad fills all channels with the same number.
    color = tf.constant([*spec.background, 255][: image.shape[-1]], tf.int32)
    edges = [[top, target_height - new_height - top], [left, target_width - new_width - left], [0, 0]]
    return tf.cast(tf.pad(tf.cast(scaled, tf.int32) - color, edges) + color, tf.uint8)


def placed_box(
    height: tf.Tensor, width: tf.Tensor, spec: ModelSpec, *, keep_proportions: bool
) -> tuple[tf.Tensor | int, tf.Tensor | int, tf.Tensor | int, tf.Tensor | int]:
    """int32 top, left, height, width: the region of the target that `resize_image` resizes the image to.

    Args:
        height, width: int32 `()`, of the image.
        spec: the target size.
        keep_proportions: as in `resize_image`; without it the region is the whole target.
    """
    target_height, target_width, _ = spec.target_size
    if not keep_proportions:
        return 0, 0, target_height, target_width
    scale = tf.minimum(target_height / height, target_width / width)
    new_height = tf.clip_by_value(tf.cast(tf.round(tf.cast(height, tf.float64) * scale), tf.int32), 1, target_height)
    new_width = tf.clip_by_value(tf.cast(tf.round(tf.cast(width, tf.float64) * scale), tf.int32), 1, target_width)
    return (target_height - new_height) // 2, (target_width - new_width) // 2, new_height, new_width


def _interpolated(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int, spec: ModelSpec) -> tf.Tensor:
    # Antialiasing averages the pixels that are merged when an image shrinks. Down to half the size, interpolation uses
    # every pixel anyway, and is 4 times faster without it; below that, it would skip some, and fine patterns become
    # noise.
    skips_pixels = tf.logical_or(tf.shape(image)[0] > 2 * height, tf.shape(image)[1] > 2 * width)
    size = tf.stack([height, width])
    resized = tf.cond(
        skips_pixels,
        lambda: tf.cast(tf.image.resize(image, size, spec.interpolation, antialias=True), tf.float32),
        lambda: tf.cast(tf.image.resize(image, size, spec.interpolation), tf.float32),
    )
    if spec.interpolation in ("bicubic", "lanczos3"):  # the others stay within the range of the pixels
        resized = tf.clip_by_value(resized, 0.0, 255.0)
    return tf.cast(resized + 0.5, tf.uint8)
