"""Building networks, freezing layers, and weight penalties."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from model_trainer import L1, L2, Call, Classification, ModelSpec, Network, Output, OwnModel
from model_trainer.errors import ConfigError
from model_trainer.network.build import build_network
from model_trainer.network.layers import add_regularizers, freeze, set_trainable
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.network import AnyNetwork
from model_trainer.specs import minimum_size

SMALL = "model_trainer.testing.small_backbone"
IMAGES = np.random.default_rng(0).normal(0, 1, (2, 16, 16, 3)).astype(np.float32)


def build(network: AnyNetwork | None = None, task: Classification | None = None, **spec: object) -> TwoStageNetwork:
    options = {"class": SMALL, "target_size": [16, 16, 3], **spec}
    return build_network(ModelSpec(**options), network or Network(), task or Classification(), num_classes=3)


def own_model(num_classes: int = 3, size: int = 16) -> keras.Model:
    return keras.Sequential(
        [keras.Input((size, size, 3)), keras.layers.Flatten(), keras.layers.Dense(num_classes, activation="softmax")]
    )


def layer_kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


@pytest.mark.parametrize(
    ("pooling", "kind"), [("avg", "GlobalAveragePooling2D"), ("max", "GlobalMaxPooling2D"), ("flatten", "Flatten")]
)
def test_pooling_turns_the_feature_map_into_a_vector(pooling: str, kind: str) -> None:
    network = build(Network(pooling=pooling))
    assert kind in layer_kinds(network.model)
    assert network.model(IMAGES).shape == (2, 3)


def test_the_head_has_its_dense_layers_each_with_dropout() -> None:
    network = build(Network(dense=(16, 8), dropout_rate=0.3))
    head = [network.model.get_layer(name) for name in network.head_layers]
    assert [layer.units for layer in head if isinstance(layer, keras.layers.Dense)] == [16, 8, 3]
    assert [layer.rate for layer in head if isinstance(layer, keras.layers.Dropout)] == [0.3, 0.3]
    assert "conv1" not in network.head_layers


@pytest.mark.parametrize(("activation", "total"), [("softmax", 1.0), ("sigmoid", None), ("none", None)])
def test_the_last_layer_has_the_tasks_activation(activation: str, total: float | None) -> None:
    outputs = build(task=Classification(activation=activation)).model(IMAGES).numpy()
    if total is not None:
        np.testing.assert_allclose(outputs.sum(axis=1), total, rtol=1e-5)
    is_probability = ((outputs >= 0) & (outputs <= 1)).all()
    assert is_probability or activation == "none"


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_and_four_channel_networks_build(channels: int) -> None:
    network = build(target_size=[16, 16, channels])
    assert network.model.input_shape == (None, 16, 16, channels)


def test_every_output_has_its_own_head() -> None:
    network = build(task=Classification(outputs=(Output("kind"), Output("again", weight=0.3))))
    assert network.model.output_names == ["kind", "again"]


def test_freezing_the_backbone_leaves_the_head_trainable() -> None:
    network = build(Network(freeze="backbone", dense=(4,)))
    assert freeze(network.model, network, Network(freeze="backbone")) != []
    trainable = {variable.path.split("/")[-2] for variable in network.model.trainable_variables}
    assert trainable == {"head_dense_1", "logits"}


@pytest.mark.parametrize("names", [("conv1",), ("conv[1]",), (1,), (-5, "conv1")])
def test_layers_freeze_by_position_name_or_pattern(names: tuple[int | str, ...]) -> None:
    network = build(Network(dropout_rate=0.0))
    freeze(network.model, network, Network(freeze=names))
    assert not network.model.get_layer("conv1").trainable
    assert network.model.get_layer("conv2").trainable
    set_trainable(network.model, ["conv1"], True)
    assert network.model.get_layer("conv1").trainable


def test_frozen_batch_normalization_runs_in_inference_mode() -> None:
    network = build(kwargs={"batch_normalization": True})
    declared = Network(freeze=("norm1",))
    freeze(network.model, network, declared)
    layer = network.model.get_layer("norm1")
    before = layer.moving_mean.numpy()
    features = np.random.default_rng(0).normal(5, 1, (4, 8, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(layer(features, training=True), layer(features, training=False))
    np.testing.assert_array_equal(layer.moving_mean.numpy(), before)


def test_a_missing_layer_is_refused_with_the_nearest_name() -> None:
    network = build()
    with pytest.raises(ConfigError, match=r"`network.freeze` names 'conv3'.*Did you mean 'conv[12]'\?"):
        freeze(network.model, network, Network(freeze=("conv3",)))


def test_freezing_all_layers_is_refused() -> None:
    network = build()
    with pytest.raises(ConfigError, match="leaves no layer to train"):
        freeze(network.model, network, Network(freeze=("*",)))


def test_penalties_are_the_sums_over_the_chosen_kernels() -> None:
    network = build()
    regularize = (L2(strength=0.1, layers=("conv*",)), L1(strength=0.01, layers=("conv1",)))
    add_regularizers(network.model, network, Network(regularize=regularize))
    first, second = (network.model.get_layer(name).kernel.numpy() for name in ("conv1", "conv2"))
    expected = 0.1 * ((first**2).sum() + (second**2).sum()) + 0.01 * np.abs(first).sum()
    assert float(sum(network.model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(**{"class": "keras.applications.vgg19.VGG91"}), r"'keras.applications.vgg19.VGG91' could not"),
        (lambda: build(**{"class": "no_such_module.Net"}), "there is no module 'no_such_module'"),
        (
            lambda: build(**{"class": "fractions.Fraction"}),
            "`spec.class` fractions.Fraction should build a Keras model",
        ),
        (lambda: build(**{"class": None}), "`spec.class` is missing"),
        (
            lambda: build(**{"class": "keras.applications.vgg19.VGG19"}),
            "`spec.target_size` should be at least 32 x 32 for keras.applications.vgg19.VGG19, got 16 x 16",
        ),
        (lambda: build(kwargs={"color": 1}), "small_backbone refuses .*color"),
    ],
)
def test_an_invalid_spec_is_an_error_that_names_it(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_minimum_size_of_a_keras_model_is_known() -> None:
    assert minimum_size("keras.applications.xception.Xception") == 71


def test_an_own_model_needs_no_class_in_its_spec() -> None:
    network = build(OwnModel(own_model()), **{"class": None})
    assert isinstance(network.model, keras.Model)
    assert network.model(IMAGES).shape == (2, 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (OwnModel(own_model(num_classes=5)), "returns 5 values for each image, but the data has 3 classes"),
        (OwnModel(own_model(size=8)), r"takes images of \(8, 8, 3\), but `spec.target_size` is \(16, 16, 3\)"),
        (OwnModel(Call("fractions.Fraction", numerator=1)), "should be a Keras model, got Fraction"),
        (OwnModel(Call("fractions.Fraction", wrong=1)), "fractions.Fraction could not be called"),
    ],
)
def test_an_own_model_that_does_not_fit_is_refused(network: OwnModel, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(network)
