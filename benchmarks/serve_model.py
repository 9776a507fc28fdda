"""Makes the model and the photos with which `serve.py` measures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from model_trainer import Classification, ModelSpec, Network, load_image, load_model
from model_trainer.model_files.files import save_model

__all__ = ["expected_answers", "make_model", "make_photos"]

NUM_CLASSES, NUM_PHOTOS = 10, 16
HEIGHT, WIDTH = 375, 500
SPEC = ModelSpec.named("mobilenet_v2", target_size=[224, 224, 3])


def make_photos(folder: Path) -> list[Path]:
    """Writes JPEG files of smooth noise at several scales and a little grain, 50 KB each; returns their paths."""
    paths = []
    for number in range(NUM_PHOTOS):
        random = np.random.default_rng(number)
        pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
        for size, strength in ((3, 90), (8, 50), (24, 28), (80, 16), (200, 8)):
            noise = random.normal(0, strength, (3, size, size)).astype(np.float32)
            scaled = [Image.fromarray(each).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for each in noise]
            pixels += np.stack([np.asarray(each) for each in scaled], axis=-1)
        pixels += random.normal(0, 3, pixels.shape)
        data = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=90)
        paths.append(folder / f"photo{number:02d}.jpg")
        paths[-1].write_bytes(data.getvalue())
    return paths


def make_model(folder: Path, photos: list[Path], spec: ModelSpec = SPEC) -> None:
    """Writes an output folder with MobileNetV2, and `engine.xml`, the same network for OpenVINO.

    Its weights are random, but batch normalization has the statistics of the photos, and the last layer is scaled, so
    that predictions differ from photo to photo and a wrong one would be noticed.
    """
    keras.utils.set_random_seed(0)
    backbone = keras.applications.MobileNetV2(spec.target_size, weights=None, include_top=False, pooling="avg")
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    images = np.stack([load_image(photo, spec) for photo in photos])
    for norm in norms:
        norm.momentum = 0.0
    backbone(images, training=True)
    for norm in norms:
        norm.momentum = 0.999
    head = keras.layers.Dense(NUM_CLASSES, activation="softmax")
    model = keras.Model(backbone.input, head(backbone.output))
    features = keras.ops.convert_to_numpy(backbone(images, training=False))
    kernel = np.random.default_rng(0).normal(size=(features.shape[1], NUM_CLASSES))
    kernel *= 2 / (features @ kernel).std(axis=0).mean()
    head.set_weights([kernel, -(features @ kernel).mean(axis=0)])
    description = {"format": 1, **spec.to_dict(), "task": Classification().to_dict(), "network": Network().to_dict()}
    description |= {"classes": [f"class{number}" for number in range(NUM_CLASSES)], "thresholds": None}
    save_model(model, folder / "final_model.hdf5", description)
    (folder / "model_spec.json").write_text(json.dumps(description))
    _save_for_openvino(model, folder, spec)


def _save_for_openvino(model: keras.Model, folder: Path, spec: ModelSpec) -> None:
    import openvino
    import tensorflow as tf

    exported = tf.Module()
    exported.weights = [variable.value for variable in model.variables]  # only attributes of the module are saved
    exported.compute = tf.function(
        lambda images: model(spec.preprocess(images), training=False),
        input_signature=[tf.TensorSpec([None, *spec.target_size], tf.uint8)],
    )
    saved_model = str(folder / "saved_model")
    tf.saved_model.save(exported, saved_model, signatures=exported.compute)
    openvino.save_model(openvino.convert_model(saved_model), str(folder / "engine.xml"), compress_to_fp16=False)


def expected_answers(folder: Path, photos: list[Path], decoders: dict[str, Any]) -> dict[str, np.ndarray]:
    """`model.predict`'s probabilities for the photos, as `load_image` decodes them and as each of `decoders` does."""
    model = load_model(folder).model
    images = {"ours": [load_image(photo, SPEC) for photo in photos]}
    for name, decode in decoders.items():
        images[name] = [SPEC.preprocess(decode(photo.read_bytes())) for photo in photos]
    return {name: model.predict(np.stack(each), verbose=0) for name, each in images.items()}
