"""Real networks in each engine; a difference is relative to how much images differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec
from model_trainer.inference.choose import make_engine, sample_images
from model_trainer.model_files.trained_model import TrainedModel

pytestmark = pytest.mark.slow

NAMES = ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "resnet50"]


@pytest.fixture(scope="module", params=NAMES)
def trained(request: pytest.FixtureRequest) -> TrainedModel:
    """A network with random weights, scaled so that the probabilities differ between images."""
    spec = ModelSpec.named(request.param).changed("target_size", (64, 64, 3))
    keras.utils.set_random_seed(1)
    make = getattr(keras.applications, str(spec.class_).rpartition(".")[2])
    backbone = make(weights=None, include_top=False, input_shape=spec.target_size, pooling="avg")
    outputs = keras.layers.Dense(5, activation="softmax")(backbone.output)
    network = keras.Model(backbone.input, outputs)
    model = TrainedModel(network, spec, Classification(), tuple("abcde"), Path("model.hdf5"))
    images = spec.preprocess(sample_images(model, 8))
    for norm in network._flatten_layers():
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.momentum = 0.0
    network(images, training=True)
    features = np.asarray(backbone(images, training=False))
    kernel, bias = network.layers[-1].kernel, network.layers[-1].bias
    kernel.assign(kernel * 2 / np.std(features @ np.asarray(kernel), axis=0).mean())
    bias.assign(-(features @ np.asarray(kernel)).mean(axis=0))
    return model


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_an_engine_gives_the_probabilities_of_keras(trained: TrainedModel, engine: str) -> None:
    images = sample_images(trained, 8)
    expected = trained.probabilities(images)
    spread = np.ptp(expected, axis=0).max()
    assert spread > 0.2
    change = replace(trained, engine=make_engine(trained, engine)).probabilities(images) - expected
    # Random weights amplify rounding, in TensorFlow as in OpenVINO, to 2e-4; bfloat16 changes at least 1.7e-2.
    assert np.abs(change).max() < 1e-3 * spread
