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
from model_trainer.pipeline.decode import Box, decode_part, is_ordinary, plain_bytes
from model_trainer.pipeline.pillow import decode_with_pillow, why_file_unreadable
from model_trainer.pipeline.resize import fit_box, resize_image
from model_trainer.specs import ModelSpec

__all__ = ["exact_image", "fast_image", "load_image", "read_image"]


def fast_image(
    path: tf.Tensor, spec: ModelSpec, *, crop: Crop | None = None, seed: tf.Tensor | None = None
) -> tf.Tensor:
    """The image of an ordinary JPEG or PNG.

    Args:
        path: string `()`.
        spec: says the size, and how an image gets it.
        crop: takes the place of the spec's `resize`: its part is stretched to the target.
        seed: int32 `(2,)`, of the crop.

    Returns:
        uint8 `target_size`: RGB, with 1 channel its luminance, with 4 RGB and alpha.

    Raises:
        tf.errors.OpError: the file is missing, damaged, or of another kind; `exact_image` decides.
    """
    data = tf.io.read_file(path)
    with tf.control_dependencies([tf.debugging.Assert(is_ordinary(data), ["kind"])]):
        data = tf.identity(data)
    return _finish(decode_part(data, _box_of(spec, crop, seed), spec), spec, crop)


def exact_image(
    path: tf.Tensor, spec: ModelSpec, *, crop: Crop | None = None, seed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """`(image, readable)` of any file, by Pillow; arguments as in `fast_image`. Nothing that a file holds raises.

    Returns:
        image: as `fast_image`; all 0 if unreadable.
        readable: bool `()`.
    """
    pixels, readable = _read_with_pillow(path, spec)
    top, left, height, width = tf.unstack(_box_of(spec, crop, seed)(tf.shape(pixels)[0], tf.shape(pixels)[1]))
    image = _finish(pixels[top : top + height, left : left + width], spec, crop)
    return tf.where(readable, image, tf.zeros_like(image)), readable


def read_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """uint8 `target_size`: the image before preprocessing.

    Raises:
        DataError: it cannot be read; says why.
    """
    path = os.fspath(path)
    fast, exact = _compiled_for(spec.model_dump_json(by_alias=True))  # JSON, because a spec with its dict has no hash
    raw = tf.constant(os.fsencode(path))
    try:
        return fast(raw).numpy()
    except tf.errors.OpError:
        image, readable = exact(raw)
    if not readable:
        raise DataError(f"{path} {why_file_unreadable(path, if_missing='is not there')}.")
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
    return make(lambda path: fast_image(path, spec)), make(lambda path: exact_image(path, spec))


def _box_of(spec: ModelSpec, crop: Crop | None, seed: tf.Tensor | None) -> Box:
    if crop is None:
        return lambda height, width: fit_box(height, width, spec)
    return lambda height, width: crop.box(height, width, seed)


def _finish(pixels: tf.Tensor, spec: ModelSpec, crop: Crop | None) -> tf.Tensor:
    image = resize_image(pixels, spec, keep_proportions=spec.resize == "pad" and crop is None)
    return tf.ensure_shape(_luminance(image) if spec.target_size[2] == 1 else image, spec.target_size)


def _read_with_pillow(path: tf.Tensor, spec: ModelSpec) -> tuple[tf.Tensor, tf.Tensor]:
    num_channels = 4 if spec.target_size[2] == 4 else 3

    def read(raw_path: bytes | np.ndarray) -> tuple[np.ndarray, np.bool_]:
        try:
            with open(plain_bytes(raw_path), "rb") as file:
                pixels = decode_with_pillow(file.read(), spec.background, with_alpha=num_channels == 4)
        except OSError:
            pixels = None
        if pixels is None:
            return np.zeros((1, 1, num_channels), np.uint8), np.bool_(False)
        return pixels, np.bool_(True)

    pixels, readable = tf.numpy_function(read, [path], (tf.uint8, tf.bool))
    readable.set_shape(())
    return tf.ensure_shape(pixels, (None, None, num_channels)), readable


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 1)`, as Pillow's mode "L": ITU-R 601 in whole numbers."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.cast((red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 65536, tf.uint8)[..., None]
