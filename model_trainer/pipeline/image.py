"""Decodes one image file into the array that the model sees, for training, validation, prediction and serving alike.

There are two steps: `images.decode` returns pixels, and a `View` crops and resizes them. `fast_image` asks the view
first which box it needs, and decodes only that.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.errors import DataError, StorageError
from model_trainer.images.decode import decode, decode_exact, read_header
from model_trainer.images.pillow import Unreadable, format_of, opened, why_unreadable
from model_trainer.pipeline.plain_jpeg import PlainJpegReader
from model_trainer.pipeline.view import View, region_inside
from model_trainer.specs import ModelSpec
from model_trainer.storage.read import read_image_file, why_not_read

__all__ = ["ImageReader", "exact_image", "fast_image", "load_image", "read_image", "read_image_bytes"]

# A decoder takes up to 22 bytes for each pixel. A server that has a decoder for each of 64 cores, and gets large images
# for all of them at once, needs no more memory than with four.
_MANY_PIXELS = 4_000_000
_FEW_AT_ONCE = threading.BoundedSemaphore(4)


def fast_image(
    data: tf.Tensor, view: View, *, region: tf.Tensor | None = None, seed: tf.Tensor | None = None
) -> tf.Tensor:
    """Decodes an ordinary JPEG or PNG with TensorFlow, and crops and resizes it as `view` declares.

    Args:
        data: string `()`, the encoded image.
        view: the crop and the size of the result.
        region: int32 `(4,)` top, left, height, width of the example's crop; height 0 and None mean the whole image.
        seed: int32 `(2,)`, for a random crop of the view.

    Returns:
        uint8 `target_size`, see `View`.

    Raises:
        tf.errors.OpError: the image is damaged or of another format, or `region` lies outside it. The caller then
            tries `exact_image`.
    """
    header = read_header(data)
    inside = region_inside(region, header.height, header.width)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_min(inside[2:]) > 0, ["region"])]):
        inside = tf.identity(inside)
    return view.resized(decode(header, view.box(inside, seed), view.pixels))


def exact_image(
    data: tf.Tensor, view: View, *, region: tf.Tensor | None = None, seed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes any bytes with Pillow, and never raises, whatever the bytes are. Arguments as in `fast_image`.

    Returns:
        `(image, readable)`. `image` is as in `fast_image`, all 0 if it cannot be read; `readable` is bool `()`, False
        also if `region` lies outside the image.
    """
    pixels, readable = decode_exact(data, view.pixels)
    inside = region_inside(region, tf.shape(pixels)[0], tf.shape(pixels)[1])
    readable &= tf.reduce_min(inside[2:]) > 0
    image = view(pixels, tf.where(readable, inside, tf.stack([0, 0, 1, 1])), seed)
    return tf.where(readable, image, tf.zeros_like(image)), readable


class ImageReader:
    """Decodes encoded images and resizes them to a spec's `target_size`, without preprocessing.

    It may be called by several threads at once: TensorFlow decodes without Python's global interpreter lock.

    Args:
        spec: the size of the result, and how an image is resized to it.
        max_pixels: images with more are not read; None is the limit of the decoders.

    Example:
        >>> read = ImageReader(ModelSpec.named("mobilenet_v2", target_size=[96, 96, 3]))
        >>> read(read_image_file("photo.jpg")).shape
        (96, 96, 3)
    """

    def __init__(self, spec: ModelSpec, max_pixels: int | None = None) -> None:
        self._max_pixels = max_pixels
        # The JSON is the key, because a spec contains a dictionary and is not hashable.
        self._fast, self._exact, self._without_autograph = _readers_for(spec.model_dump_json(by_alias=True))

    def __call__(self, data: bytes) -> np.ndarray:
        """Returns the image as uint8 `target_size`.

        Raises:
            DataError: it cannot be read; the message is the reason only, such as "is not an image".
        """
        plain = self._without_autograph(data, self._max_pixels)
        if plain is not None:
            return plain
        if self._max_pixels is None:
            return self._read(data)
        if _check_pixels(data, self._max_pixels) < _MANY_PIXELS:
            return self._read(data)
        with _FEW_AT_ONCE:
            return self._read(data)

    def _read(self, data: bytes) -> np.ndarray:
        tensor = tf.constant(data)
        try:
            return self._fast(tensor).numpy()
        except tf.errors.OpError:
            image, readable = self._exact(tensor)
        if not readable:
            raise DataError(why_unreadable(data))
        return image.numpy()


def read_image_bytes(data: bytes, spec: ModelSpec) -> np.ndarray:
    """Decodes an encoded image as `read_image` reads a file; for many images, use an `ImageReader`.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        DataError: the image cannot be read; the message is the reason only, such as "is not an image".
    """
    return ImageReader(spec)(data)


def read_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """Reads an image file and resizes it to the spec's `target_size`, without preprocessing.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        DataError: the image cannot be read; the message gives the reason.
    """
    path = os.fspath(path)
    try:
        data = read_image_file(path)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} {why_not_read(error, if_missing='does not exist')}.") from None
    try:
        return read_image_bytes(data, spec)
    except DataError as reason:
        raise DataError(f"{path} {reason}.") from None


def load_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """Reads, resizes and preprocesses an image file: the exact array that the model sees.

    Args:
        path: a local path or the URL of a mounted storage.
        spec: the size of the result, and the preprocessing; `load_model(...).spec` for a trained model.

    Returns:
        float32 `(height, width, channels)`, the spec's `target_size`.

    Raises:
        DataError: the image cannot be read; the message gives the reason.

    Example:
        >>> image = load_image("photo.jpg", ModelSpec.named("mobilenet_v2", target_size=[96, 96, 3]))
        >>> image.shape, image.dtype.name, bool(-1 <= image.min() < image.max() <= 1)
        ((96, 96, 3), 'float32', True)
    """
    return spec.preprocess(read_image(path, spec))


@functools.lru_cache(maxsize=8)
def _readers_for(spec_json: str) -> tuple[Callable[..., Any], Callable[..., Any], PlainJpegReader]:
    spec = ModelSpec.model_validate_json(spec_json)
    view = View(spec)
    make = functools.partial(tf.function, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    return make(lambda data: fast_image(data, view)), make(lambda data: exact_image(data, view)), PlainJpegReader(spec)


def _check_pixels(data: bytes, max_pixels: int) -> int:
    """Returns the number of pixels of an image, 0 if it cannot be read; raises DataError if there are more."""
    try:
        num_pixels = _count_pixels(data)
    except Unreadable as problem:
        if problem.is_bomb:  # more pixels than any limit; its own message would name the limit of this process
            raise DataError(f"has more than the limit of {max_pixels:,} pixels") from None
        return 0  # the decoder finds out whether it can be read, and why not
    if num_pixels > max_pixels:
        raise DataError(f"has {num_pixels:,} pixels, more than the limit of {max_pixels:,} pixels")
    return num_pixels


def _count_pixels(data: bytes) -> int:
    if format_of(data) == "JPEG":
        try:  # faster than Pillow, and mostly without Python's global interpreter lock
            height, width, _ = tf.image.extract_jpeg_shape(data).numpy()
        except tf.errors.OpError:
            pass
        else:
            return int(height) * int(width)
    with opened(data) as image:
        return image.width * image.height
