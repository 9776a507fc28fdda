"""Files that Keras 2 wrote load into today's networks.

`old_files/` was made on 2026-11-21 with tf_keras 2.21.0, which is Keras 2, TensorFlow 2.21.0 and h5py 3.14.0, with
random weights from NumPy's `default_rng(0)`: `mobilenet_*` is tf_keras' MobileNet (alpha 0.0625, 32 x 32 pixels) with
pooling, dropout, a Dense layer `logits` of 3 and softmax; `numbered_*` is a Sequential whose layers have the names that
Keras counts, after others had been made. `*_whole.h5` are of `model.save`, `*_weights.h5` of `model.save_weights`;
`answers.npz` holds images and what tf_keras' models answered.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec, Network, OwnModel
from model_trainer.errors import ModelFileError
from model_trainer.model_files.weights import InitializedNetwork, initialize_network
from model_trainer.network.build import build_network

FILES = Path(__file__).with_name("old_files")
MOBILENET = ModelSpec(
    **{
        "class": "keras.applications.mobilenet.MobileNet",
        "kwargs": {"alpha": 0.0625},
        "target_size": [32, 32, 3],
        "preprocess_func": "between_plus_minus_1",
    }
)
KINDS = ["whole", "weights"]


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(FILES / "answers.npz") as file:
        return dict(file)


def start(weights: Path, num_classes: int = 3) -> InitializedNetwork:
    return initialize_network(MOBILENET, Network(), Classification(), num_classes, str(weights))


def numbered(num_classes: int = 3) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Normalization(),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.SeparableConv2D(6, 3, strides=2),
            layers.Flatten(),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


def start_numbered(weights: Path, model: keras.Model) -> InitializedNetwork:
    spec = ModelSpec(target_size=(8, 8, 3))
    return initialize_network(spec, OwnModel(model), Classification(), 3, str(weights))


def test_the_files_were_written_by_keras_2() -> None:
    with h5py.File(FILES / "mobilenet_whole.h5") as file:
        assert file.attrs["keras_version"].startswith("2.")
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    assert layers[0]["config"]["batch_input_shape"] == [None, 32, 32, 3]
    depthwise = [layer["config"] for layer in layers if layer["class_name"] == "DepthwiseConv2D"]
    assert len(depthwise) == 13
    assert all(config["groups"] == 1 for config in depthwise)


@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_2_network_gives_its_original_predictions(kind: str, answers: dict[str, np.ndarray]) -> None:
    model = start(FILES / f"mobilenet_{kind}.h5").network.model
    np.testing.assert_allclose(model(answers["images"]), answers["mobilenet"], rtol=1e-4, atol=1e-6)


def test_a_keras_2_network_gets_a_new_head() -> None:
    network = start(FILES / "mobilenet_whole.h5", num_classes=5).network
    with h5py.File(FILES / "mobilenet_whole.h5") as file:
        kernel = file["model_weights/conv_dw_1/conv_dw_1/depthwise_kernel:0"][()]
    np.testing.assert_array_equal(network.model.get_layer("conv_dw_1").kernel.numpy(), kernel)
    assert network.model.output_shape == (None, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_automatic_layer_names_that_differ_are_matched_by_order(kind: str, answers: dict[str, np.ndarray]) -> None:
    model = start_numbered(FILES / f"numbered_{kind}.h5", numbered()).network.model
    with h5py.File(FILES / f"numbered_{kind}.h5") as file:
        theirs = set(file["model_weights"] if kind == "whole" else file)
    assert not {layer.name for layer in model.layers if layer.weights} <= theirs
    np.testing.assert_allclose(model(answers["images"][:, :8, :8]), answers["numbered"], rtol=1e-4, atol=1e-6)


def test_an_order_that_does_not_fit_is_refused_with_the_name_of_the_layer() -> None:
    images = keras.Input((8, 8, 3))
    other = keras.layers.Conv2D(4, 3, padding="same", name="first")(images)
    outputs = keras.layers.Dense(3, name="last")(keras.layers.Flatten()(other))
    with pytest.raises(ModelFileError, match="layer 'first' needs .*, the file has "):
        start_numbered(FILES / "numbered_whole.h5", keras.Model(images, outputs))


def test_imagenet_weights_with_layer_names_of_keras_1_load_by_order(tmp_path: Path) -> None:
    # As vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5: names of fixed length, weights named W and b.
    path = tmp_path / "notop.h5"
    random = np.random.default_rng(0)
    model = build_network(MOBILENET, Network(), Classification(), 3).model
    backbone = [layer for layer in model.layers if layer.weights and layer.name != "logits"]
    values = [[random.normal(0, 1, variable.shape) for variable in layer.weights] for layer in backbone]
    with h5py.File(path, "w") as file:
        names = [f"older_{number}" for number in range(len(backbone))]
        file.attrs["layer_names"] = np.array([name.encode() for name in names])
        for name, arrays in zip(names, values, strict=True):
            weights = [f"{name}_{number}_W_1:0" for number in range(len(arrays))]
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([weight.encode() for weight in weights])
            for weight, array in zip(weights, arrays, strict=True):
                group[weight] = array.astype(np.float32)
    network = start(path).network
    loaded = [layer for layer in network.model.layers if layer.weights and layer.name != "logits"]
    for layer, arrays in zip(loaded, values, strict=True):
        for variable, array in zip(layer.weights, arrays, strict=True):
            np.testing.assert_array_equal(variable.numpy(), array.astype(np.float32))


def test_layer_names_split_into_numbered_attributes_are_read(tmp_path: Path) -> None:
    # Keras splits lists over 64 KiB into layer_names0, layer_names1, ...
    path = tmp_path / "parts.h5"
    source = FILES / "mobilenet_weights.h5"
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:40], names[40:]
    ours, theirs = start(path).network.model, start(source).network.model
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
