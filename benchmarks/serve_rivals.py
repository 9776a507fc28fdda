"""Code that the rivals of `serve.py` share: how they decode an image and run the network.

They decode as users do, with Pillow or TensorFlow, and squash the whole image to 224 x 224. The folder that they are
given contains `final_model.hdf5`, and `engine.xml`, the same network for OpenVINO.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Settings", "load_decoder", "load_engine", "load_keras", "preprocess", "read_settings"]

SIZE = 224
VARIABLE = "SERVE_RIVAL"  # environment variable with the folder and the settings, which worker processes inherit

Settings = dict[str, Any]


def read_settings() -> tuple[Path, Settings]:
    folder, settings = json.loads(os.environ[VARIABLE])
    return Path(folder), settings


def preprocess(images: Any) -> Any:
    return images / np.float32(127.5) - np.float32(1)


def load_decoder(settings: Settings) -> Callable[[bytes], np.ndarray]:
    """Returns a function from an encoded image to uint8 pixels `(224, 224, 3)`."""
    if settings.get("decoder", "pillow") == "pillow":
        from PIL import Image

        return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE), BILINEAR))
    import tensorflow as tf

    def decode(data: bytes) -> np.ndarray:
        pixels = tf.image.resize(tf.io.decode_jpeg(data, channels=3), (SIZE, SIZE))
        return tf.cast(pixels, tf.uint8).numpy()

    return decode


BILINEAR = 2  # PIL.Image.Resampling.BILINEAR


def load_keras(folder: Path) -> Any:
    import keras

    return keras.saving.load_model(folder / "final_model.hdf5", compile=False)


def load_engine(folder: Path, settings: Settings) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a warmed-up function from uint8 `(batch, 224, 224, 3)` to probabilities `(batch, num_classes)`."""
    engine = _openvino(folder, settings) if settings["engine"] == "openvino" else _compiled_keras(folder)
    for size in range(1, settings.get("max_batch", 1) + 1):
        engine(np.zeros((size, SIZE, SIZE, 3), np.uint8))
    return engine


def _openvino(folder: Path, settings: Settings) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    options["INFERENCE_NUM_THREADS"] = settings.get("threads", 1)
    core = openvino.Core()
    request = core.compile_model(core.read_model(folder / "engine.xml"), "CPU", options).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True)[0]


def _compiled_keras(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    model = load_keras(folder)
    signature = [tf.TensorSpec([None, SIZE, SIZE, 3], tf.uint8)]
    compiled = tf.function(lambda images: model(preprocess(tf.cast(images, tf.float32))), input_signature=signature)
    return lambda images: compiled(images).numpy()
