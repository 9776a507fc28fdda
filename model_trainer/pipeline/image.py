"""One image file to what the model sees. Training, validation, prediction and serving all come through here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.errors import DataError
from model_trainer.pipeline.augment import Crop
from model_trainer.pipeline.decode import decode_part, is_ordinary, plain_bytes
from model_trainer.pipeline.pillow import decode_with_pillow, why_unreadable
from model_trainer.pipeline.resize import fit_box, resize_image
from model_trainer.specs import ModelSpec
from model_trainer.storage.read import read_image_file, why_not_read

__all__ = ["exact_image", "fast_image", "load_image", "part_inside", "read_image"]


def fast_image(
    data: tf.Tensor,
    spec: ModelSpec,
    *,
    part: tf.Tensor | None = None,
    crop: Crop | None = None,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """The image of an ordinary JPEG or PNG.

    Args:
        data: string `()`, the encoded image.
        spec: says the size, and how an image gets it.
        part: int32 `(4,)` top, left, height, width of what counts as the image; height 0 and None mean all of it.
        crop: takes the place of the spec's `resize`: what it chooses of the part is stretched to the target.
        seed: int32 `(2,)`, of the crop.

    Returns:
        uint8 `target_size`: RGB, with 1 channel its luminance, with 4 RGB and alpha.

    Raises:
        tf.errors.OpError: the image is damaged, of another kind, or `part` lies outside; `exact_image` decides.
    """
    with tf.control_dependencies([tf.debugging.Assert(is_ordinary(data), ["kind"])]):
        data = tf.identity(data)

    def box(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        inside = part_inside(part, height, width)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_min(inside[2:]) > 0, ["part"])]):
            return _box_in(tf.identity(inside), spec, crop, seed)

    return _finish(decode_part(data, box, spec), spec, crop)


def exact_image(
    data: tf.Tensor,
    spec: ModelSpec,
    *,
    part: tf.Tensor | None = None,
    crop: Crop | None = None,
    seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`(image, readable)` of any bytes, by Pillow; arguments as in `fast_image`. Nothing that they hold raises.

    Returns:
        image: as `fast_image`; all 0 if unreadable.
        readable: bool `()`; False also where `part` lies outside the image.
    """
    pixels, readable = _decode_with_pillow(data, spec)
    inside = part_inside(part, tf.shape(pixels)[0], tf.shape(pixels)[1])
    readable &= tf.reduce_min(inside[2:]) > 0
    inside = tf.where(readable, inside, tf.stack([0, 0, 1, 1]))
    top, left, height, width = tf.unstack(_box_in(inside, spec, crop, seed))
    image = _finish(pixels[top : top + height, left : left + width], spec, crop)
    return tf.where(readable, image, tf.zeros_like(image)), readable


def read_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """uint8 `target_size`: the image before preprocessing.

    Raises:
        DataError: it cannot be read; says why.
    """
    path = os.fspath(path)
    fast, exact = _compiled_for(spec.model_dump_json(by_alias=True))  # JSON, because a spec with its dict has no hash
    try:
        data = tf.constant(read_image_file(path))
    except OSError as error:
        raise DataError(f"{path} {why_not_read(error, if_missing='is not there')}.") from None
    try:
        return fast(data).numpy()
    except tf.errors.OpError:
        image, readable = exact(data)
    if not readable:
        raise DataError(f"{path} {why_unreadable(data.numpy())}.")
    return image.numpy()


def load_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """float32 `target_size`: the exact array that the model sees.

    Raises:
        DataError: the image cannot be read; says why.
    """
    return spec.preprocess(read_image(path, spec))


@functools.lru_cache(maxsize=8)
def _compiled_for(spec_json: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    spec = ModelSpec.model_validate_json(spec_json)
    make = functools.partial(tf.function, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    return make(lambda data: fast_image(data, spec)), make(lambda data: exact_image(data, spec))


def part_inside(part: tf.Tensor | None, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """int32 `(4,)`: what of `part` lies inside the image, with a height or width of 0 or less where nothing does."""
    whole = tf.stack([0, 0, height, width])
    if part is None:
        return whole
    top, left = tf.maximum(part[0], 0), tf.maximum(part[1], 0)
    bottom, right = tf.minimum(part[0] + part[2], height), tf.minimum(part[1] + part[3], width)
    return tf.where(part[2] > 0, tf.stack([top, left, bottom - top, right - left]), whole)


def _box_in(part: tf.Tensor, spec: ModelSpec, crop: Crop | None, seed: tf.Tensor | None) -> tf.Tensor:
    """The box, in the image, of what is decoded of `part`."""
    height, width = part[2], part[3]
    box = fit_box(height, width, spec) if crop is None else crop.box(height, width, seed)
    return box + tf.stack([part[0], part[1], 0, 0])


def _finish(pixels: tf.Tensor, spec: ModelSpec, crop: Crop | None) -> tf.Tensor:
    image = resize_image(pixels, spec, keep_proportions=spec.resize == "pad" and crop is None)
    return tf.ensure_shape(_luminance(image) if spec.target_size[2] == 1 else image, spec.target_size)


def _decode_with_pillow(data: tf.Tensor, spec: ModelSpec) -> tuple[tf.Tensor, tf.Tensor]:
    num_channels = 4 if spec.target_size[2] == 4 else 3

    def decode(raw: bytes | np.ndarray) -> tuple[np.ndarray, np.bool_]:
        pixels = decode_with_pillow(plain_bytes(raw), spec.background, with_alpha=num_channels == 4)
        if pixels is None:
            return np.zeros((1, 1, num_channels), np.uint8), np.bool_(False)
        return pixels, np.bool_(True)

    pixels, readable = tf.numpy_function(decode, [data], (tf.uint8, tf.bool))
    readable.set_shape(())
    return tf.ensure_shape(pixels, (None, None, num_channels)), readable


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 1)`, as Pillow's mode "L": ITU-R 601 in whole numbers."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.cast((red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 65536, tf.uint8)[..., None]
