"""One image file to what the model sees. Training, validation, prediction and serving all come through here."""

from __future__ import annotations

import functools
import os

import numpy as np
import tensorflow as tf

from model_trainer.errors import DataError
from model_trainer.pipeline.augment import Crop
from model_trainer.pipeline.decode import decode_part, is_ordinary
from model_trainer.pipeline.pillow import decode_with_pillow, why_unreadable
from model_trainer.pipeline.resize import fit_box, resize_image
from model_trainer.specs import ModelSpec

__all__ = ["load_image", "make_image", "read_image"]


def make_image(
    path: tf.Tensor, spec: ModelSpec, *, crop: Crop | None = None, seed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """`(image, readable)`; nothing that a file holds makes it raise.

    Args:
        path: string `()`.
        spec: says the size, and how an image gets it.
        crop: takes the place of the spec's `resize`: its part is stretched to the target.
        seed: int32 `(2,)`, of the crop.

    Returns:
        image: uint8 `target_size`: RGB, with 1 channel its luminance, with 4 RGB and alpha; 0 if unreadable.
        readable: bool `()`.
    """

    def box(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return fit_box(height, width, spec) if crop is None else crop.box(height, width, seed)

    def finish(pixels: tf.Tensor) -> tf.Tensor:
        image = resize_image(pixels, spec, keep_proportions=spec.resize == "pad" and crop is None)
        return tf.ensure_shape(_luminance(image) if spec.target_size[2] == 1 else image, spec.target_size)

    def fast(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return finish(decode_part(data, box, spec)), tf.constant(True)

    def exact(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, readable = _read_with_pillow(path, spec)
        top, left, height, width = tf.unstack(box(tf.shape(pixels)[0], tf.shape(pixels)[1]))
        image = finish(pixels[top : top + height, left : left + width])
        return tf.where(readable, image, tf.zeros_like(image)), readable

    # A graph has no try; a data set of one element does: what raises in it is left out, and the next takes its place.
    # It costs 0.07 ms an image (docs/decisions/0004).
    ours = tf.data.Dataset.from_tensors(path).map(tf.io.read_file).filter(is_ordinary).map(fast)
    ours = ours.ignore_errors(log_warning=False)
    return ours.concatenate(tf.data.Dataset.from_tensors(path).map(exact)).take(1).get_single_element()


def read_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """uint8 `target_size`: the image before preprocessing.

    Raises:
        DataError: it cannot be read; says why.
    """
    path = os.fspath(path)
    image, readable = _compiled(spec)(tf.constant(os.fsencode(path)))
    if not readable:
        raise DataError(f"{path} {_reason(path)}.")
    return image.numpy()


def load_image(path: str | os.PathLike[str], spec: ModelSpec) -> np.ndarray:
    """float32 `target_size`: the exact array that the model sees.

    Raises:
        DataError: the image cannot be read; says why.
    """
    return spec.preprocess(read_image(path, spec))


@functools.lru_cache(maxsize=8)
def _compiled_for(spec_json: str) -> tf.types.experimental.PolymorphicFunction:
    spec = ModelSpec.model_validate_json(spec_json)
    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(lambda path: make_image(path, spec), input_signature=signature, autograph=False)


def _compiled(spec: ModelSpec) -> tf.types.experimental.PolymorphicFunction:
    # By its JSON, because a spec holds a dict and so has no hash.
    return _compiled_for(spec.model_dump_json(by_alias=True))


def _read_with_pillow(path: tf.Tensor, spec: ModelSpec) -> tuple[tf.Tensor, tf.Tensor]:
    num_channels = 4 if spec.target_size[2] == 4 else 3

    def read(raw_path: bytes) -> tuple[np.ndarray, np.bool_]:
        try:
            with open(raw_path, "rb") as file:
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


def _reason(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return why_unreadable(file.read())
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"could not be opened ({error.strerror})"
