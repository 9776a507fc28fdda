"""A small model file of Model Trainer, whose content and description tests change, and random weights."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from model_trainer import Classification, ModelSpec, Network
from model_trainer.model_files.files import ATTRIBUTE, save_model
from model_trainer.network.build import build_network

SPEC = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
DESCRIPTION: dict[str, Any] = {
    "format": 1,
    **SPEC.to_dict(),
    "task": Classification().to_dict(),
    "network": Network().to_dict(),
    "classes": ["blue", "green", "red"],
    "thresholds": None,
}


@pytest.fixture(scope="session")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "model.hdf5"
    model = build_network(SPEC, Network(), Classification(), 3).model
    random = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(random.normal(0, 1, variable.shape))
    save_model(model, path, DESCRIPTION)
    return path


def _randomize(model: keras.Model, images: np.ndarray, seed: int = 0) -> None:
    """Random weights of realistic spread, with moving averages near what the layers really see."""
    random = np.random.default_rng(seed)
    layers = model._flatten_layers(include_self=False)
    for layer in layers:
        for variable in getattr(layer, "_trainable_variables", []):
            shape = tuple(variable.shape)
            if len(shape) > 1:
                is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in variable.name
                fan_in = np.prod(shape[:2] if is_depthwise else shape[:-1])
                value = random.normal(0, np.sqrt(2.0 / fan_in), shape)
            elif variable.name in ("bias", "beta"):
                value = random.normal(0, 0.1, shape)
            else:  # gamma of normalization, and ConvNeXt's scale of each layer
                value = random.uniform(0.3, 0.9, shape)
            variable.assign(value)
    for layer in layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.adapt_mean.assign(random.uniform(0.3, 0.6, layer.adapt_mean.shape))
            layer.adapt_variance.assign(random.uniform(0.04, 0.3, layer.adapt_mean.shape))
            layer.finalize_state()
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.call = functools.partial(_with_fitting_averages, layer, layer.call, random)
    model(images, training=False)
    for layer in norms:
        del layer.call


def _with_fitting_averages(
    layer: keras.Layer, call: Callable[..., Any], random: np.random.Generator, inputs: Any, **_: Any
) -> Any:
    mean, variance = (each.numpy() for each in tf.nn.moments(inputs, axes=list(range(len(inputs.shape) - 1))))
    layer.moving_mean.assign(mean + random.normal(0, 0.2, mean.shape) * np.sqrt(variance))
    # A channel that is nearly constant over all images would be magnified, and its rounding errors, too.
    layer.moving_variance.assign(np.maximum(variance, variance.mean() / 10) * random.uniform(0.7, 1.4, mean.shape))
    return call(inputs, training=False)


@pytest.fixture(scope="session")
def randomize() -> Callable[[keras.Model, np.ndarray], None]:
    """Gives a model random weights of realistic spread; see `_randomize`."""
    return _randomize


@pytest.fixture(name="save", scope="session")
def _save() -> Callable[[keras.Model, Path], str]:
    """Writes a model with Keras, in the format of the suffix; `.weights.h5` has the weights only."""

    def save(model: keras.Model, path: Path) -> str:
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # Keras advises against .hdf5 on every save
        try:
            (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
        finally:
            logging.set_verbosity(verbosity)
        return str(path)

    return save


@pytest.fixture
def model_file(_saved: Path, tmp_path: Path) -> Path:
    """A copy of a valid model file, which a test may damage."""
    return Path(shutil.copy(_saved, tmp_path / "model.hdf5"))


@pytest.fixture
def describe(model_file: Path) -> Callable[..., Path]:
    """Gives the file another description: changed keys, or a text as it is."""

    def change(text: str | None = None, **changes: object) -> Path:
        with h5py.File(model_file, "r+") as file:
            file.attrs[ATTRIBUTE] = json.dumps(DESCRIPTION | changes) if text is None else text
        return model_file

    return change


@pytest.fixture
def within() -> Callable[[float], contextlib.AbstractContextManager[None]]:
    """`with within(16e6):` fails if Python's objects and NumPy's arrays take more bytes than that inside the block."""

    @contextlib.contextmanager
    def measure(most_bytes: float) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < most_bytes

    return measure
