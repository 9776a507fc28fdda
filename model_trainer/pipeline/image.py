"""One image file to what the model sees. Training, validation, prediction and serving all come through here.

Two steps: `images.decode` gives pixels, and a `View` of them the image. `fast_image` asks the view first which box it
wants, and decodes no more.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.errors import DataError
from model_trainer.images.decode import decode, decode_exact, read_header
from model_trainer.images.pillow import why_unreadable
from model_trainer.pipeline.view import View, region_inside
from model_trainer.specs import ModelSpec
from model_trainer.storage.read import read_image_file, why_not_read

__all__ = ["exact_image", "fast_image", "load_image", "read_image"]


def fast_image(
    data: tf.Tensor, view: View, *, part: tf.Tensor | None = None, seed: tf.Tensor | None = None
) -> tf.Tensor:
    """The view of an ordinary JPEG or PNG.

    Args:
        data: string `()`, the encoded image.
        part: int32 `(4,)` top, left, height, width of what counts as the image; height 0 and None mean all of it.
        seed: int32 `(2,)`, of the view's crop.

    Returns:
        uint8 `target_size`, see `View`.

    Raises:
        tf.errors.OpError: the image is damaged, of another kind, or `part` lies outside; `exact_image` decides.
    """
    header = read_header(data)
    inside = region_inside(part, header.height, header.width)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_min(inside[2:]) > 0, ["part"])]):
        inside = tf.identity(inside)
    return view.resized(decode(header, view.box(inside, seed), view.pixels))


def exact_image(
    data: tf.Tensor, view: View, *, part: tf.Tensor | None = None, seed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """`(image, readable)` of any bytes, by Pillow; arguments as in `fast_image`. Nothing that they hold raises.

    Returns:
        image: as `fast_image`; all 0 if unreadable.
        readable: bool `()`; False also where `part` lies outside the image.
    """
    pixels, readable = decode_exact(data, view.pixels)
    inside = region_inside(part, tf.shape(pixels)[0], tf.shape(pixels)[1])
    readable &= tf.reduce_min(inside[2:]) > 0
    image = view(pixels, tf.where(readable, inside, tf.stack([0, 0, 1, 1])), seed)
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
    view = View(ModelSpec.model_validate_json(spec_json))
    make = functools.partial(tf.function, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    return make(lambda data: fast_image(data, view)), make(lambda data: exact_image(data, view))
