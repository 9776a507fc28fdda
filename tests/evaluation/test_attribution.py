"""Attribution maps: against NumPy and finite differences, on every family of the table, and drawn over an image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from model_trainer import Classification, ModelSpec, MultiLabel, Network, Output, TrainedModel, load_model
from model_trainer.evaluation.attribution import GradCAM, NoFeatureMap, attribution_maps, overlay
from model_trainer.network.build import build_network
from model_trainer.specs import TABLE
from model_trainer.testing import small_backbone

# Tracing takes longer than the few operations.
pytestmark = pytest.mark.usefixtures("eager_steps")

layers = keras.layers
SIZE = (16, 16, 3)
SMALL = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": SIZE})
CLASSES = ("blue", "green", "red")


def pixels(shape: tuple[int, int, int] = SIZE, count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *shape)).astype(np.uint8)


def randomize(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 100.0
        variable.assign(random.normal(0.0, 1.0 / np.sqrt(fan_in), variable.shape))
    return model


def convolutions(shape: tuple[int, int, int] = SIZE) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input images, and a feature map of 4 x 4 pixels and 6 channels with values of both signs."""
    images = keras.Input(shape)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(layers.Rescaling(1 / 127.5, -1.0)(images))
    return images, layers.Conv2D(6, 3, strides=2, padding="same", name="features")(x)


def small_network(end: Any = None) -> keras.Model:
    images, x = convolutions()
    end = end or layers.Dense(3, activation="softmax")
    return randomize(keras.Model(images, end(layers.GlobalAveragePooling2D()(x))))


def scaled(evidence: np.ndarray) -> np.ndarray:
    """The positive part of `evidence`, `(num_images, height, width)`, with each maximum scaled to 1."""
    positive = np.maximum(evidence, 0.0)
    return positive / np.maximum(positive.max(axis=(1, 2), keepdims=True), 1e-30)


def class_activation(features: Any, kernel: Any, classes: np.ndarray) -> np.ndarray:
    """The class activation map (CAM, https://arxiv.org/abs/1512.04150) of average pooling and one dense layer."""
    return scaled(np.einsum("bhwc,cb->bhw", np.asarray(features), np.asarray(kernel)[:, classes]))


def features_of(model: keras.Model, images: np.ndarray, layer: str = "features") -> np.ndarray:
    return np.asarray(keras.Model(model.inputs[0], model.get_layer(layer).output)(images.astype(np.float32)))


def test_channel_weights_are_the_mean_gradient_of_the_logit() -> None:
    images, features = convolutions()
    hidden, last = layers.Dense(5, activation="tanh"), layers.Dense(3, activation="softmax")
    model = randomize(keras.Model(images, last(hidden(layers.Flatten()(features)))))
    shown, classes, step = pixels(count=2), np.array([2, 0]), 1e-6
    values = features_of(model, shown).astype(np.float64)
    weights = [np.asarray(each, np.float64) for each in (hidden.kernel, hidden.bias, last.kernel, last.bias)]

    def logit(features: np.ndarray, index: int) -> float:
        return float((np.tanh(features.reshape(-1) @ weights[0] + weights[1]) @ weights[2] + weights[3])[index])

    evidence = np.zeros((2, 4, 4))
    for number, (value, index) in enumerate(zip(values, classes, strict=True)):
        gradient = np.zeros_like(value)
        for position in np.ndindex(value.shape):
            moved = np.zeros_like(value)
            moved[position] = step
            gradient[position] = (logit(value + moved, index) - logit(value - moved, index)) / (2 * step)
        evidence[number] = value @ gradient.mean(axis=(0, 1))
    np.testing.assert_allclose(attribution_maps(model, shown, classes), scaled(evidence), atol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
def test_after_average_pooling_the_map_is_the_class_activation_map(activation: str) -> None:
    model = small_network(layers.Dense(3, activation=activation))
    classes = np.array([0, 1, 2, 2])
    maps = attribution_maps(model, pixels(), classes)
    expected = class_activation(features_of(model, pixels()), model.layers[-1].kernel, classes)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert maps.dtype == np.float32
    assert (maps.max(axis=(1, 2)) == 1.0).all()


@pytest.mark.parametrize("is_fused", [True, False])
def test_a_probability_of_1_has_a_map(is_fused: bool) -> None:
    def end(x: Any) -> Any:
        return layers.Dense(3, activation="softmax")(x) if is_fused else layers.Softmax()(layers.Dense(3)(x))

    model = small_network(end)
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    dense.kernel.assign(1e4 * dense.kernel)
    classes = np.argmax(model(pixels().astype(np.float32)), axis=1)
    assert np.max(model(pixels().astype(np.float32)), axis=1).tolist() == [1.0] * 4
    expected = class_activation(features_of(model, pixels()), dense.kernel, classes)
    np.testing.assert_allclose(attribution_maps(model, pixels(), classes), expected, atol=1e-5)


def bright_model(channels: int = 3) -> TrainedModel:
    """A model that detects a bright square: class 1 has one, class 0 has none."""
    images = keras.Input((32, 32, channels))
    mean, classifier = layers.Conv2D(1, 4, strides=4, activation="relu"), layers.Dense(2, activation="softmax")
    model = keras.Model(images, classifier(layers.GlobalAveragePooling2D()(mean(images))))
    mean.set_weights([np.full((4, 4, channels, 1), 1 / (16 * channels)), np.array([-0.5])])
    classifier.set_weights([np.array([[-3.0, 3.0]]), np.array([0.2, 0.0])])
    spec = ModelSpec(target_size=[32, 32, channels], preprocess_func="between_plus_minus_1")
    return TrainedModel(model, spec, Classification(), ("dark", "bright"), Path("bright.h5"))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_peak_of_the_map_is_at_the_bright_square(channels: int) -> None:
    images = np.full((2, 32, 32, channels), 20, np.uint8)
    images[0, 20:24, 4:8] = 250
    images[1, 8:12, 28:32] = 250
    maps = attribution_maps(bright_model(channels), images, np.array([1, 1]))
    expected = np.zeros((2, 8, 8))
    expected[0, 5, 1] = expected[1, 2, 7] = 1.0
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_the_map_is_0_everywhere_without_evidence_for_the_class() -> None:
    images = np.full((2, 32, 32, 3), 20, np.uint8)
    images[0, 20:24, 4:8] = 250
    assert not attribution_maps(bright_model(), images, np.array([0, 1])).any()


def test_rounding_errors_of_cancelling_evidence_give_an_empty_map() -> None:
    images, features = convolutions()
    features = layers.Activation("relu")(features)
    x = layers.LayerNormalization(epsilon=1e-12)(layers.GlobalAveragePooling2D()(features))  # as in ConvNeXt's head
    model = randomize(keras.Model(images, layers.Dense(3)(x)))
    constant = np.zeros((3, 16, 16, 3), np.uint8)
    model.layers[3].kernel.assign(0.0 * model.layers[3].kernel)  # the same features at each position
    model.layers[3].bias.assign([0.9, 0.1, 0.4, 0.3, 0.2, 0.7])
    assert not attribution_maps(model, constant, np.arange(3)).any()


# The smallest model of each family: an image size at which its last feature map has several pixels; that map's size.
FAMILIES = {
    "convnext_tiny": (64, 2), "densenet_121": (64, 2), "efficientnetb0": (64, 2), "efficientnetv2b0": (64, 2),
    "inception_resnet_v2": (107, 2), "inception_v3": (107, 2), "mobilenet_v1": (64, 2), "mobilenet_v2": (64, 2),
    "mobilenet_v3_small": (64, 2), "mobilenet_v3_large": (64, 2), "nasnet_mobile": (64, 2), "resnet50": (64, 2),
    "resnet50_v2": (64, 2), "vgg16": (64, 2), "xception": (71, 3),
}  # fmt: skip
FAST = ("convnext_tiny", "mobilenet_v3_small")


def check_family(name: str, network: Network) -> None:
    size, map_size = FAMILIES[name]
    spec = ModelSpec.named(name, target_size=[size, size, 3])
    keras.utils.set_random_seed(0)
    built = build_network(spec, network, Classification(), 4)
    dense = built.model.get_layer("logits")
    kernel = np.random.default_rng(0).normal(0, 1, (dense.kernel.shape[0], 2))
    dense.kernel.assign(np.concatenate([kernel, -kernel], axis=1))  # evidence for a class is evidence against another
    trained = TrainedModel(built.model, spec, Classification(), (*CLASSES, "yellow"), Path("model.hdf5"))
    shown = np.repeat(pixels((size, size, 3), count=1), 4, axis=0)
    maps = attribution_maps(trained, shown, np.arange(4))
    assert maps.shape == (4, map_size, map_size)
    assert np.isfinite(maps).all()
    assert (maps[:2] + maps[2:]).max(axis=(1, 2)).tolist() == [1.0, 1.0]
    assert not (maps[:2] * maps[2:]).any()
    if network.pooling == "avg":
        features = built.backbone(spec.preprocess(shown), training=False)
        np.testing.assert_allclose(maps, class_activation(features, dense.kernel, np.arange(4)), atol=1e-3)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in FAMILIES]
)
def test_the_map_of_every_family_is_the_class_activation_map_of_its_last_feature_map(name: str) -> None:
    check_family(name, Network())


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["max", "flatten"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_maps_with_max_pooling_and_flatten(name: str, pooling: str) -> None:
    check_family(name, Network(pooling=pooling))


def test_every_family_of_the_table_is_tested() -> None:
    def family(name: str) -> str:
        return TABLE[name].class_.rpartition(".")[0] if "V3" not in TABLE[name].class_ else TABLE[name].class_

    tested = {family(name) for name in FAMILIES} | {"keras.applications.resnet", "keras.applications.vgg19"}
    assert tested == {family(name) for name in TABLE}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_keras_application_with_its_own_top_has_maps(name: str) -> None:
    size, map_size = FAMILIES[name]
    module, _, function = TABLE[name].class_.removeprefix("keras.applications.").rpartition(".")
    make = getattr(getattr(keras.applications, module) if module else keras.applications, function)
    model = make(weights=None, include_top=True, classes=3, input_shape=(size, size, 3))
    maps = attribution_maps(model, pixels((size, size, 3), count=2), np.array([0, 1]))
    assert maps.shape == (2, map_size, map_size)
    assert np.isfinite(maps).all()


def test_layers_with_weights_on_one_pixel_belong_to_the_head() -> None:
    images, features = convolutions()
    x = layers.GlobalAveragePooling2D(keepdims=True)(features)  # as in MobileNetV3
    last = layers.Conv2D(3, 1)
    x = layers.Flatten()(last(layers.Dropout(0.2)(x)))
    model = randomize(keras.Model(images, layers.Activation("softmax")(x)))
    classes = np.array([0, 1, 2, 1])
    expected = class_activation(features_of(model, pixels()), last.kernel[0, 0], classes)
    np.testing.assert_allclose(attribution_maps(model, pixels(), classes), expected, atol=1e-5)


def test_instead_of_a_map_of_one_pixel_an_earlier_one_without_padding_is_used() -> None:
    images, features = convolutions()
    x = layers.Conv2D(4, 4)(layers.ZeroPadding2D(((0, 1), (0, 1)))(features))
    x = layers.Conv2D(4, 2, activation="relu")(x)  # then a map of one pixel, as in MobileNetV2 for images of 32 x 32
    model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x))))
    assert model.get_layer("features").output.shape == (None, 4, 4, 6)
    assert GradCAM(model)._backbone.output.shape == (None, 2, 2, 4)
    one_pixel = keras.Model(images, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 5)(model.layers[4].output))))
    assert GradCAM(one_pixel)._backbone.output.shape == (None, 4, 4, 6)


def test_of_two_outputs_the_first_is_explained_on_its_own_last_feature_map() -> None:
    images, features = convolutions()
    side = layers.Dense(3, name="side")(layers.GlobalMaxPooling2D()(features))
    later = layers.Conv2D(5, 3, activation="relu", name="later")(features)
    main = layers.Dense(3, name="main")
    model = randomize(keras.Model(images, [main(layers.GlobalAveragePooling2D()(later)), side]))
    classes = np.array([0, 1, 2, 2])
    expected = class_activation(features_of(model, pixels(), "later"), main.kernel, classes)
    np.testing.assert_allclose(attribution_maps(model, pixels(), classes), expected, atol=1e-5)


def test_a_task_with_two_outputs_explains_the_one_that_predicts() -> None:
    task = MultiLabel(outputs=(Output("main"), Output("auxiliary")))
    network = build_network(SMALL, Network(), task, 3)
    randomize(network.model)
    trained = TrainedModel(network.model, SMALL, task, CLASSES, Path("model.hdf5"))
    classes = np.array([0, 1, 2, 2])
    kernel = network.model.get_layer("logits_main").kernel
    expected = class_activation(network.backbone(pixels().astype(np.float32)), kernel, classes)
    np.testing.assert_allclose(attribution_maps(trained, pixels(), classes), expected, atol=1e-5)


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def test_a_model_in_mixed_precision_is_explained_in_float32() -> None:
    with dtype_policy("mixed_bfloat16"):
        model = small_network()
    classes = np.array([0, 1, 2, 1])
    in_float32 = small_network()  # with the same weights
    assert np.abs(features_of(model, pixels()) - features_of(in_float32, pixels())).max() > 1e-3
    expected = attribution_maps(in_float32, pixels(), classes)
    np.testing.assert_allclose(attribution_maps(model, pixels(), classes), expected, atol=1e-5)


def nested_model(policy: str = "float32") -> keras.Model:
    """A model as in Keras' transfer-learning guide, whose nested model pools and so hides its feature map."""
    with dtype_policy(policy):
        base = small_backbone(SIZE, batch_normalization=True)
        inner = keras.Model(base.inputs[0], layers.GlobalAveragePooling2D()(base.output), name="pooled")
        images = keras.Input(SIZE)
        x = layers.Dropout(0.2)(inner(images, training=False))
        return randomize(keras.Model(images, layers.Dense(3, activation="softmax", name="breeds")(x)))


def expected_of_nested(model: keras.Model, classes: np.ndarray) -> np.ndarray:
    """The class activation maps of a `nested_model` with the same weights in float32."""
    float32_copy = nested_model()
    float32_copy.set_weights(model.get_weights())
    features = features_of(float32_copy.get_layer("pooled"), pixels(), "conv2")
    return class_activation(features, float32_copy.get_layer("breeds").kernel, classes)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_nested_models_and_mixed_precision_are_explained_in_float32(policy: str) -> None:
    model, classes = nested_model(policy), np.array([0, 1, 2, 1])
    np.testing.assert_allclose(
        attribution_maps(model, pixels(), classes), expected_of_nested(model, classes), atol=1e-5
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_keras_file_with_a_nested_model_is_explained_in_float32(tmp_path: Path, policy: str) -> None:
    with dtype_policy(policy):
        images = keras.Input(SIZE)
        x = layers.GlobalAveragePooling2D()(small_backbone(SIZE)(images))
        model = randomize(keras.Model(images, layers.Dense(3, activation="softmax", name="breeds")(x)))
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # Keras advises against .h5 on every save
    model.save(tmp_path / "dogs.h5")
    logging.set_verbosity(verbosity)
    trained = load_model(tmp_path / "dogs.h5", spec=SMALL, classes=CLASSES)
    float32_copy = small_backbone(SIZE)
    float32_copy.set_weights(model.get_layer("small_backbone").get_weights())
    classes = np.array([0, 1, 2, 1])
    expected = class_activation(float32_copy(pixels().astype(np.float32)), model.get_layer("breeds").kernel, classes)
    np.testing.assert_allclose(attribution_maps(trained, pixels(), classes), expected, atol=1e-5)


def test_probabilities_without_logits_are_explained_by_their_logarithm() -> None:
    images, features = convolutions()
    x = layers.GlobalAveragePooling2D()(features)
    heads = [layers.Dense(3, activation="softmax")(x), layers.Dense(3, activation="softmax")(x)]
    model = randomize(keras.Model(images, layers.Average()(heads)))
    classes = np.array([0, 1, 2, 1])
    values = tf.constant(features_of(model, pixels()))
    head = keras.Model(features, model.outputs[0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        explained = tf.reduce_sum(tf.math.log(head(values)) * tf.one_hot(classes, 3))
    weights = tape.gradient(explained, values).numpy().mean(axis=(1, 2))
    expected = scaled(np.einsum("bhwc,bc->bhw", values, weights))
    np.testing.assert_allclose(attribution_maps(model, pixels(), classes), expected, atol=1e-5)


def without_map() -> dict[str, keras.Model]:
    images = keras.Input(SIZE)
    flat = layers.Dense(3)(layers.Flatten()(layers.Rescaling(1 / 255)(images)))
    patches = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4)(images))
    attended = layers.LayerNormalization()(layers.MultiHeadAttention(1, 8)(patches, patches))
    normalization = layers.Normalization()  # its statistics are weights
    normalization.adapt(pixels().astype(np.float32))
    scaled_images = normalization(images)
    branches = [layers.GlobalAveragePooling2D()(layers.Conv2D(4, size)(scaled_images)) for size in (1, 3)]
    return {
        "vectors": keras.Model(images, flat),
        "a sequence": keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling1D()(attended))),
        "images of two branches": keras.Model(images, layers.Dense(3)(layers.Concatenate()(branches))),
        "one pixel": keras.Model(images, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 16)(images)))),
    }


@pytest.mark.parametrize("kind", ["vectors", "a sequence", "images of two branches", "one pixel"])
def test_a_network_without_a_feature_map_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(NoFeatureMap, match="has no attribution maps: it has no feature map"):
        GradCAM(without_map()[kind])


class Subclassed(keras.Model):
    def call(self, inputs: Any) -> Any:
        return inputs


def test_a_subclassed_model_is_refused_with_the_reason() -> None:
    with pytest.raises(NoFeatureMap, match="they need a functional or Sequential model with one input"):
        GradCAM(Subclassed(name="mine"))


def test_a_map_computed_from_a_vector_is_not_used() -> None:
    images, features = convolutions()
    x = layers.Dense(4 * 4 * 2)(layers.GlobalAveragePooling2D()(features))
    x = layers.Conv2D(2, 3, padding="same")(layers.Reshape((4, 4, 2))(x))
    model = randomize(keras.Model(images, layers.Dense(3)(layers.GlobalMaxPooling2D()(x))))
    cam = GradCAM(model)
    assert cam._backbone.output is model.get_layer("features").output


def test_a_reshaped_feature_map_is_explained_on_the_original_one() -> None:
    images, features = convolutions()
    last = layers.Dense(3)
    model = randomize(keras.Model(images, last(layers.GlobalAveragePooling1D()(layers.Reshape((16, 6))(features)))))
    classes = np.array([0, 1, 2, 1])
    expected = class_activation(features_of(model, pixels()), last.kernel, classes)
    np.testing.assert_allclose(attribution_maps(model, pixels(), classes), expected, atol=1e-5)


def test_a_fully_convolutional_model_is_explained_on_its_map_of_class_scores() -> None:
    images = keras.Input(SIZE)
    model = randomize(keras.Model(images, layers.GlobalAveragePooling2D()(layers.Conv2D(3, 4, strides=4)(images))))
    shown, classes = pixels(), np.array([0, 1, 2, 1])
    scores = np.asarray(model.layers[1](shown.astype(np.float32)))
    expected = scaled(np.stack([score[..., index] for score, index in zip(scores, classes, strict=True)]))
    np.testing.assert_allclose(attribution_maps(model, shown, classes), expected, atol=1e-5)


def test_the_batch_size_does_not_change_the_maps() -> None:
    shown, classes = pixels(count=5), np.array([0, 1, 2, 1, 0])
    cam = GradCAM(small_network())
    maps = cam(shown, classes, batch_size=5)
    np.testing.assert_allclose(cam(shown, classes, batch_size=2), maps, atol=1e-5)


def test_no_images_give_no_maps() -> None:
    assert attribution_maps(small_network(), pixels()[:0], np.zeros(0, int)).shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("images", "classes", "message"),
    [
        (pixels((8, 16, 3)), [0] * 4, r"should be \(num_images, 16, 16, 3\), got \(4, 8, 16, 3\)"),
        (pixels(), [0], "should name a class for each of 4 images"),
        (pixels(), [0, 1, 2, 3], "should be 0 to 2, got 0 to 3"),
    ],
)
def test_images_of_another_size_and_invalid_classes_are_refused(
    images: np.ndarray, classes: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attribution_maps(small_network(), images, np.array(classes))


def test_non_finite_weights_give_an_empty_map() -> None:
    model = small_network()
    model.get_layer("features").bias.assign([np.nan] * 6)
    assert not attribution_maps(model, pixels(), np.zeros(4, int)).any()


def test_an_overlay_leaves_the_image_unchanged_where_the_map_is_0() -> None:
    image = pixels((32, 48, 3), count=1)[0]
    strengths = np.zeros((4, 6))
    strengths[3, 5] = 1.0
    drawn = overlay(image, strengths)
    np.testing.assert_array_equal(drawn[:, :32], image[:, :32])
    assert (drawn[-4:, -4:] != image[-4:, -4:]).any(axis=2).all()


def test_an_overlay_enlarges_the_map_bilinearly() -> None:
    strengths = np.random.default_rng(0).uniform(0, 1, (3, 5)).astype(np.float32)
    drawn = overlay(np.zeros((30, 50, 3), np.uint8), strengths)
    large = tf.image.resize(strengths[..., None], (30, 50)).numpy()
    expected = 0.75 * large * matplotlib.colormaps["inferno"](large[..., 0])[..., :3] * 255.0
    assert np.abs(drawn - expected).max() <= 2.0  # the color map has 256 steps


def test_an_overlay_on_a_gray_image_is_colored() -> None:
    drawn = overlay(np.full((8, 8, 1), 100, np.uint8), np.ones((2, 2)))
    assert drawn.shape == (8, 8, 3)
    assert drawn[0, 0, 0] > drawn[0, 0, 2]
