"""Layers for CPUs that compute in bfloat16, compared with Keras' own in float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Classification, ModelSpec, Network
from model_trainer.network.build import build_network
from model_trainer.network.cpu_layers import cpu_form
from model_trainer.network.training_copy import make_training_copy

pytestmark = pytest.mark.long

LAYERS = {
    "strided": (keras.layers.DepthwiseConv2D, {"kernel_size": 3, "strides": 2, "padding": "same"}),
    "strided on odd sizes": (keras.layers.DepthwiseConv2D, {"kernel_size": 3, "strides": 2, "padding": "valid"}),
    "5 pixels wide": (keras.layers.DepthwiseConv2D, {"kernel_size": 5, "padding": "same"}),
    "5 wide, strided": (keras.layers.DepthwiseConv2D, {"kernel_size": 5, "strides": 2, "padding": "same"}),
    "7 wide, valid, activated": (keras.layers.DepthwiseConv2D, {"kernel_size": 7, "activation": "softsign"}),
    "not square": (keras.layers.DepthwiseConv2D, {"kernel_size": (7, 2), "padding": "same", "depth_multiplier": 2}),
    "separable": (keras.layers.SeparableConv2D, {"filters": 5, "kernel_size": 5, "padding": "same"}),
    "separable, strided": (keras.layers.SeparableConv2D, {"filters": 5, "kernel_size": 7, "strides": 2}),
    "3 wide, with a bias": (keras.layers.DepthwiseConv2D, {"kernel_size": 3, "padding": "same"}),
    "in groups": (keras.layers.Conv2D, {"filters": 6, "kernel_size": 3, "groups": 2}),
    "dilated": (keras.layers.Conv2D, {"filters": 6, "kernel_size": 3, "dilation_rate": 2}),
    "einsum": (
        keras.layers.EinsumDense,
        {"equation": "abcd,de->abce", "output_shape": (None, 34, 5), "bias_axes": "e"},
    ),
    "dense": (keras.layers.Dense, {"units": 5, "activation": "softsign"}),
    "SiLU": (keras.layers.Activation, {"activation": "silu"}),
    "ReLU": (keras.layers.Activation, {"activation": "relu"}),
    "ReLU6": (keras.layers.ReLU, {"max_value": 6.0}),
}
ROUNDING = 2e-2  # relative to the largest value: bfloat16 has 8 bits
CLOSER = {"SiLU": 6e-3}  # computed in float32; Keras' own in bfloat16 is 1.2e-2 off


def rounded(values: np.ndarray) -> tf.Tensor:
    """float32 numbers that bfloat16 can represent exactly."""
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


def outputs_and_gradients(layer: keras.Layer, inputs: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.cast(layer(inputs), tf.float32)
        total = tf.reduce_sum(outputs * np.random.default_rng(1).normal(0, 1, outputs.shape))
    weights = [variable.value for variable in layer.trainable_variables]
    return [outputs, *tape.gradient(total, [inputs, *weights])]


@pytest.mark.parametrize("is_graph", [False, True], ids=["eagerly", "in a graph"])
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_match_keras(name: str, is_graph: bool) -> None:
    make, options = LAYERS[name]
    random = np.random.default_rng(0)
    # Enough pixels that a sum in bfloat16 would be far off.
    inputs = rounded(random.normal(0, 3, (3, 31, 34, 4)))
    theirs, plain = make(**options, dtype="float32"), make(**options, dtype="mixed_bfloat16")
    ours = cpu_form(plain)
    assert type(ours) is not make
    assert ours.get_config() == plain.get_config()
    for layer in (theirs, ours):
        layer.build(inputs.shape)
    weights = [rounded(random.normal(0, 1, variable.shape)) for variable in theirs.weights]
    theirs.set_weights(weights)
    ours.set_weights(weights)
    run = tf.function(outputs_and_gradients, autograph=False) if is_graph else outputs_and_gradients
    for mine, reference in zip(run(ours, inputs), outputs_and_gradients(theirs, inputs), strict=True):
        tolerance = CLOSER.get(name, ROUNDING)
        np.testing.assert_allclose(mine, reference, rtol=0, atol=tolerance * np.abs(reference).max())


class OwnReLU(keras.layers.ReLU):
    """A user's subclass of a layer that has a fast form."""


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.DepthwiseConv2D(5, dtype="float32"),
        keras.layers.DepthwiseConv2D(3, use_bias=False, dtype="mixed_bfloat16"),
        keras.layers.DepthwiseConv2D(5, dilation_rate=2, dtype="mixed_bfloat16"),
        keras.layers.ReLU(6.0, negative_slope=0.1, dtype="mixed_bfloat16"),
        keras.layers.Activation("tanh", dtype="mixed_bfloat16"),
        keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16"),
        OwnReLU(6.0, dtype="mixed_bfloat16"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_fast_and_custom_layers_are_not_replaced(layer: keras.Layer) -> None:
    assert cpu_form(layer) is layer


def test_images_may_have_any_size() -> None:
    options = {"kernel_size": 5, "strides": 2, "padding": "same"}
    ours = cpu_form(keras.layers.DepthwiseConv2D(**options, dtype="mixed_bfloat16"))
    theirs = keras.layers.DepthwiseConv2D(**options)
    inputs = rounded(np.random.default_rng(0).normal(0, 1, (2, 9, 10, 4)))
    for layer in (ours, theirs):
        layer.build((None, None, None, 4))
    theirs.set_weights([rounded(variable) for variable in theirs.weights])
    ours.set_weights(theirs.get_weights())
    gradients = []
    for layer in (ours, theirs):

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 4), tf.float32)], autograph=False)
        def gradient(inputs: tf.Tensor, layer: keras.Layer = layer) -> tf.Tensor:
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(tf.cast(layer(inputs), tf.float32) ** 2)
            return tape.gradient(total, layer.kernel.value)

        gradients.append(gradient(inputs))
    np.testing.assert_allclose(*gradients, rtol=0, atol=ROUNDING * np.abs(gradients[1]).max())


@pytest.mark.parametrize(("size", "stride"), [((1, 1), 2), ((1, 1), 3), ((3, 1), 2), ((2, 2), 4)], ids=str)
def test_kernel_pixels_that_overlap_only_padding_have_a_zero_gradient(size: tuple[int, int], stride: int) -> None:
    # There TensorFlow's operation leaves bfloat16 memory uninitialized: often but not always 0.
    options = {"kernel_size": 3, "strides": stride, "padding": "same"}
    layers = [keras.layers.DepthwiseConv2D(**options), keras.layers.DepthwiseConv2D(**options, dtype="mixed_bfloat16")]
    layers[1] = cpu_form(layers[1])
    for layer in layers:
        layer.build((None, *size, 16))
        layer.set_weights([np.ones(variable.shape) for variable in layer.weights])
    for number in range(20):
        inputs = rounded(np.random.default_rng(number).normal(0, 1, (4, *size, 16)))
        expected, actual = (outputs_and_gradients(layer, inputs)[2] for layer in layers)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


def test_infinities_and_nans_are_propagated() -> None:
    for make, options in (LAYERS[name] for name in ("SiLU", "ReLU", "ReLU6")):
        layer = cpu_form(make(**options, dtype="mixed_bfloat16"))
        assert np.isnan(outputs_and_gradients(layer, tf.constant([[1.0, np.nan]]))[0]).any()


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("efficientnetb0", {"FastActivation", "FastDepthwiseConv2D"}),
        ("mobilenet_v2", {"FastReLU", "FastDepthwiseConv2D"}),
        ("nasnet_mobile", {"FastActivation", "FastSeparableConv2D"}),
    ],
)
def test_networks_get_the_cpu_layers_with_the_names_and_weights_of_the_keras_layers(
    monkeypatch: pytest.MonkeyPatch, name: str, forms: set[str]
) -> None:
    original = keras.src.applications.nasnet.NASNet  # one block of each kind instead of four has all its layers
    monkeypatch.setattr(
        keras.src.applications.nasnet,
        "NASNet",
        lambda *arguments, **options: original(*arguments, **options | {"num_blocks": 1}),
    )
    spec = ModelSpec.named(name, target_size=[32, 32, 3])
    plain = build_network(spec, Network(), Classification(), 3)
    copy = make_training_copy(plain, "mixed_bfloat16", seed=0)
    assert {type(layer).__name__ for layer in copy.model.layers} >= {"FusedBatchNormalization", *forms}
    names = [[variable.path.split("/")[-2:] for variable in model.weights] for model in (copy.model, plain.model)]
    assert names[0] == names[1]
    assert {type(layer).__module__.split(".")[0] for layer in plain.model.layers} == {"keras"}
