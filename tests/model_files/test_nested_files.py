"""Files as Keras' transfer-learning guide saves them: a backbone nested as one layer of the model, under a head."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from absl import logging

from model_trainer import Classification, ModelSpec, MultiLabel, Network, OwnModel, evaluate, load_model, predict
from model_trainer.errors import ModelFileError
from model_trainer.model_files.weights import initialize_network
from model_trainer.sources import ImageFolder
from model_trainer.testing import small_backbone

pytestmark = pytest.mark.usefixtures("short_pipeline")

Save = Callable[[keras.Model, Path], str]
Randomize = Callable[[keras.Model, np.ndarray], None]
layers = keras.layers

SPEC = ModelSpec.named("mobilenet_v2", target_size=[32, 32, 3], kwargs={"alpha": 0.35})
# Built and traced quickly, for tests in which it makes no difference which network is nested.
SMALL = ModelSpec(
    **{
        "class": "model_trainer.testing.small_backbone",
        "preprocess_func": "between_plus_minus_1",
        "target_size": [16, 16, 3],
        "kwargs": {"batch_normalization": True},
    }
)
CLASSES = ["blue", "green", "red"]
SUFFIXES = [".h5", ".keras", ".weights.h5"]


def pixels(size: int = 32) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, size, size, 3)).astype(np.uint8)


def check_same(actual: Any, expected: Any) -> None:
    """Asserts equality up to rounding, relative to the spread of the answers over images.

    A compiled network computes in another order than one that is called, and layers over one pixel magnify that: at
    32 x 32 pixels the logits of EfficientNetV2B0 are 0.8e-3 off those in float64 in one, 1.2e-3 in the other.
    """
    expected = np.asarray(expected)
    assert np.abs(actual - expected).max() < 0.05 * expected.std(axis=0).max()


def breeds(x: Any) -> Any:
    return layers.Dense(3, activation="softmax", name="breeds")(x)


def guide(
    base: keras.Model, end: Callable[[Any], Any] = breeds, *, begin: Callable[[Any], Any] = lambda x: x
) -> keras.Model:
    """The model of the guide: `begin`, the base in inference mode, pooling, dropout and `end`."""
    images = keras.Input(base.input_shape[1:])
    x = layers.GlobalAveragePooling2D()(base(begin(images), training=False))
    return keras.Model(images, end(layers.Dropout(0.2)(x)))


def small_guide(end: Callable[[Any], Any] = breeds, *, begin: Callable[[Any], Any] = lambda x: x) -> keras.Model:
    return guide(small_backbone((16, 16, 3), batch_normalization=True), end, begin=begin)


@pytest.fixture(scope="module")
def nested(randomize: Randomize) -> keras.Model:
    """The model of the guide on a MobileNetV2; shared by the tests, which do not change it."""
    options = {"weights": None, "include_top": False, "input_shape": (32, 32, 3), "alpha": 0.35}
    model = guide(keras.applications.MobileNetV2(**options))
    randomize(model, np.asarray(SPEC.preprocess(pixels())))
    model.get_layer("breeds").kernel.assign(0.1 * model.get_layer("breeds").kernel)
    return model


@pytest.fixture(scope="module")
def dogs(nested: keras.Model, save: Save, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The file of `nested` in the format of a suffix; written once, and only read by tests."""

    @functools.cache
    def written(suffix: str) -> str:
        return save(nested, tmp_path_factory.mktemp("nested") / f"dogs{suffix}")

    return written


@pytest.fixture(scope="module")
def small_file(save: Save, tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `dogs`, with the small network."""
    return save(small_guide(), tmp_path_factory.mktemp("small") / "dogs.h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_backbone_is_found_in_a_file_and_the_log_says_what_was_loaded(
    nested: keras.Model, dogs: Callable[[str], str], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = dogs(suffix)
    logging.get_absl_logger().addHandler(caplog.handler)
    logging.set_verbosity(logging.DEBUG)
    network = initialize_network(SPEC, Network(), Classification(), 5, path).network
    logging.get_absl_logger().removeHandler(caplog.handler)
    backbone = nested.layers[1]
    for layer in (each for each in backbone.layers if each.weights):
        for theirs, ours in zip(layer.weights, network.model.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    (line,) = {record.getMessage() for record in caplog.records if record.levelname == "INFO"}
    container = backbone.name if suffix == ".h5" else "functional"
    assert line == (
        f"Loaded the weights of 104 layers from {path}, from the model {container!r} in it. Not loaded: breeds. "
        "Randomly initialized: logits."
    )
    full = next(record.getMessage() for record in caplog.records if record.levelname == "DEBUG")
    assert full.startswith("Loaded: Conv1, bn_Conv1, expanded_conv_depthwise, ")


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_partly_frozen_backbone_is_found(nested: keras.Model, tmp_path: Path, save: Save, is_frozen: bool) -> None:
    for layer in nested.layers[1].layers[:100]:
        layer.trainable = not is_frozen  # Keras' old format stores trainable weights first
    path = save(nested, tmp_path / "dogs.h5")
    for layer in nested.layers[1].layers:
        layer.trainable = True
    network = initialize_network(SPEC, Network(), Classification(), 5, path).network
    for name in ("Conv1", "bn_Conv1", "block_16_project_BN"):
        for theirs, ours in zip(
            nested.layers[1].get_layer(name).weights, network.model.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_automatic_layer_names_with_other_numbers_are_matched(tmp_path: Path, suffix: str, save: Save) -> None:
    def backbone(first: int) -> keras.Model:
        images = keras.Input((16, 16, 3))
        x = images
        for number in range(first, first + 12):  # "conv2d_9" comes before "conv2d_10", which sorted names do not
            x = layers.Conv2D(4, 1, name=f"conv2d_{number}")(x)
        return keras.Model(images, x, name="backbone")

    images = keras.Input((16, 16, 3))
    base = backbone(7)
    model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(base(images))))
    own = keras.Sequential([keras.Input((16, 16, 3)), backbone(0), layers.GlobalAveragePooling2D(), layers.Dense(5)])
    path = save(model, tmp_path / f"model{suffix}")
    network = initialize_network(ModelSpec(target_size=(16, 16, 3)), OwnModel(own), Classification(), 5, path).network
    for number in range(12):
        theirs, ours = base.get_layer(f"conv2d_{number + 7}"), network.model.get_layer(f"conv2d_{number}")
        np.testing.assert_array_equal(ours.kernel, theirs.kernel)


def probabilities_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(SPEC.preprocess(images), training=False))


def random_small(randomize: Randomize, end: Callable[[Any], Any] = breeds) -> keras.Model:
    model = small_guide(end)
    randomize(model, np.asarray(SMALL.preprocess(pixels(16))))
    return model


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("trust", [False, True])
def test_a_keras_file_predicts_with_a_given_spec_and_classes(
    tmp_path: Path, save: Save, randomize: Randomize, suffix: str, trust: bool
) -> None:
    model = random_small(randomize)
    trained = load_model(save(model, tmp_path / f"dogs{suffix}"), trust, spec=SMALL, classes=CLASSES)
    assert trained.classes == tuple(CLASSES)
    check_same(trained.probabilities(pixels(16)), probabilities_of(model, pixels(16)))


def test_a_spec_given_by_name_takes_its_size_from_the_file(tmp_path: Path, save: Save) -> None:
    base = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(48, 64, 3))
    model = keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")])
    trained = load_model(save(model, tmp_path / "model.h5"), spec="mobilenet", classes=CLASSES)
    assert trained.spec.target_size == (48, 64, 3)
    assert trained.spec.preprocess_func == "between_plus_minus_1"


HEADS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "logits": (Classification, lambda x: layers.Dense(3)(x)),
    "two layers": (
        Classification,
        lambda x: layers.Dense(3, activation="softmax")(layers.BatchNormalization()(layers.Dense(6, "relu")(x))),
    ),
    "activation": (Classification, lambda x: layers.Softmax()(layers.Dense(3)(x))),
    "nested": (Classification, lambda x: keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3, "softmax")])(x)),
    "tags": (MultiLabel, lambda x: layers.Dense(3, activation="sigmoid")(x)),
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_common_layers_are_read_without_keras(
    tmp_path: Path, save: Save, randomize: Randomize, head: str
) -> None:
    kind, end = HEADS[head]
    model = random_small(randomize, end)
    trained = load_model(save(model, tmp_path / "model.h5"), spec=SMALL, classes=CLASSES)
    assert isinstance(trained.task, kind)
    outputs = probabilities_of(model, pixels(16))
    expected = keras.ops.softmax(outputs) if head == "logits" else outputs
    check_same(trained.probabilities(pixels(16)), expected)


def test_a_single_output_is_a_binary_prediction(tmp_path: Path, save: Save, randomize: Randomize) -> None:
    model = random_small(randomize, lambda x: layers.Dense(1)(x))
    trained = load_model(save(model, tmp_path / "model.h5"), spec=SMALL, classes=["dog"])
    expected = keras.ops.sigmoid(probabilities_of(model, pixels(16)))
    check_same(trained.probabilities(pixels(16)), expected)


@pytest.mark.parametrize("is_nested", [True, False])
def test_a_model_with_its_own_rescaling_gets_images_without_preprocessing(
    tmp_path: Path, save: Save, randomize: Randomize, is_nested: bool
) -> None:
    def begin(x: Any) -> Any:
        return layers.Rescaling(1 / 127.5, offset=-1.0)(layers.RandomFlip("horizontal")(x) if is_nested else x)

    model = small_guide(begin=begin)
    if not is_nested:
        images = keras.Input((16, 16, 3))
        x = begin(images)
        for layer in small_backbone((16, 16, 3), batch_normalization=True).layers[1:]:
            x = layer(x)
        model = keras.Model(images, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    randomize(model, pixels(16).astype(np.float32))
    trained = load_model(save(model, tmp_path / "model.h5"), spec=SMALL, classes=CLASSES)
    assert trained.spec.preprocess_func == "none"
    expected = np.asarray(model(pixels(16).astype(np.float32), training=False))
    check_same(trained.probabilities(pixels(16)), expected)


def test_a_complete_model_of_keras_applications_predicts(tmp_path: Path, save: Save, randomize: Randomize) -> None:
    model = keras.applications.MobileNetV2(weights=None, classes=3, input_shape=(32, 32, 3), alpha=0.35)
    randomize(model, np.asarray(SPEC.preprocess(pixels())))
    trained = load_model(save(model, tmp_path / "model.h5"), spec=SPEC, classes=CLASSES)
    check_same(trained.probabilities(pixels()), probabilities_of(model, pixels()))


@pytest.mark.slow
def test_the_alpha_of_a_mobilenet_is_read_from_its_name(nested: keras.Model, dogs: Callable[[str], str]) -> None:
    trained = load_model(dogs(".keras"), spec="mobilenet_v2", classes=CLASSES)
    assert trained.spec.kwargs == {"alpha": 0.35}
    check_same(trained.probabilities(pixels()), probabilities_of(nested, pixels()))


def test_a_trusted_spec_of_another_network_than_the_file_gives_a_warning(
    dogs: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    logging.get_absl_logger().addHandler(caplog.handler)
    load_model(dogs(".h5"), trust=True, spec="vgg16", classes=CLASSES)
    logging.get_absl_logger().removeHandler(caplog.handler)
    assert "looks like mobilenet_v2, but its images are preprocessed like those of vgg16." in caplog.text


def test_two_outputs_are_refused_even_with_trust(tmp_path: Path, save: Save) -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(inputs)
    path = save(keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(3)(x)]), tmp_path / "two.h5")
    with pytest.raises(ModelFileError, match="it has 2 outputs of 3 values; expected one"):
        load_model(path, trust=True, spec=SPEC.changed("target_size", [16, 16, 3]), classes=CLASSES)


def test_the_error_of_a_file_without_a_description_names_both_options_and_the_likely_network(
    dogs: Callable[[str], str],
) -> None:
    path = dogs(".h5")
    with pytest.raises(ModelFileError) as error:
        load_model(path)
    message = str(error.value)
    assert message.startswith(f"{path} does not describe how its images are preprocessed")
    assert "Its backbone 'mobilenetv2_0.35_32' looks like mobilenet_v2 and it has 3 outputs." in message
    assert "--spec mobilenet_v2 --classes NAMES, the 3 names in the order of its outputs" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": SPEC, "classes": ["a", "b"]}, "has 3 outputs, but 2 classes are named"),
        ({"spec": "vgg16", "classes": CLASSES}, "does not fit vgg16: layer 'block1_conv1' needs"),
        ({"spec": SPEC.changed("kwargs", {"alpha": 0.5}), "classes": CLASSES}, "does not fit mobilenetv2_0.50_32"),
        ({"spec": SPEC}, "--spec is given, but --classes is not."),
        ({"classes": CLASSES}, "--classes is given, but --spec is not."),
        ({"spec": SPEC, "classes": ["names"]}, "If 'names' should be a file, it does not exist."),
        ({"spec": "mobilenet_v22", "classes": CLASSES}, "--spec: should be a model of keras.applications"),
    ],
)
def test_a_spec_or_classes_that_do_not_fit_are_refused(
    dogs: Callable[[str], str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFileError, match=re.escape(message)):
        load_model(dogs(".h5"), **options)


def test_a_head_that_is_not_a_chain_of_common_layers_needs_trust(
    tmp_path: Path, save: Save, randomize: Randomize
) -> None:
    def end(x: Any) -> Any:
        return layers.Dense(3, activation="softmax")(layers.Concatenate()([layers.Dense(4)(x), layers.Dense(4)(x)]))

    model = random_small(randomize, end)
    path = save(model, tmp_path / "model.h5")
    with pytest.raises(ModelFileError, match="only Keras can load it. If the file is your own"):
        load_model(path, spec=SMALL, classes=CLASSES)
    trained = load_model(path, trust=True, spec=SMALL, classes=CLASSES)
    check_same(trained.probabilities(pixels(16)), probabilities_of(model, pixels(16)))


def test_spec_and_classes_are_refused_for_a_file_that_describes_itself(model_file: Path) -> None:
    with pytest.raises(ModelFileError, match="already describes its network and classes"):
        load_model(model_file, spec=SPEC, classes=CLASSES)


def test_predict_and_evaluate_accept_a_keras_file(small_file: str, colors: Path) -> None:
    options: dict[str, Any] = {"spec": SMALL, "classes": CLASSES}
    answers = predict(small_file, colors / "val", **options)
    assert {each["label"] for each in answers[0]["predictions"]} == set(CLASSES)
    evaluation = evaluate(small_file, ImageFolder(colors / "val"), **options)
    assert evaluation.num_images == 9


def insert_rescalings(layers: list[dict[str, Any]]) -> None:
    layers[1:1] = [{"class_name": "Rescaling", "name": "r", "config": {"name": "r", "scale": 1.0}}] * 1000


def insert_huge_layer(layers: list[dict[str, Any]], before: int = -1) -> None:
    """Inserts a huge layer before another one, and connects both."""
    last = layers[before]
    huge = {"class_name": "Dense", "name": "huge", "config": {"name": "huge", "units": 10**9}}
    layers.insert(before, {**huge, "inbound_nodes": json.loads(json.dumps(last["inbound_nodes"]))})
    last["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "huge"


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a huge output": (lambda layers: layers[-1]["config"].update(units=10**9), "has 1000000000 outputs, but 3 classes"),
    "a huge hidden layer": (insert_huge_layer, "layer 'huge' needs [(8, 1000000000)"),
    "an activation that is a path": (lambda layers: layers[-1]["config"].update(activation="os.system"), "'os.system'"),
    "an activation that is code": (
        lambda layers: layers[-1]["config"].update(activation={"class_name": "__lambda__", "config": {"value": ["x"]}}),
        "has the activation",
    ),
    "units that are a list": (lambda layers: layers[-1]["config"].update(units=[3] * 100), "has a units that is not"),
    "units that are a text": (lambda layers: layers[-1]["config"].update(units="3"), "cannot be built"),
    "no pooling": (lambda layers: layers.pop(2), "only Keras can load it"),
    "a layer that is a number": (lambda layers: layers.append(7), "only Keras can load it"),
    "a name with a line break": (lambda layers: layers[-1]["config"].update(name="x\ny\ud800"), ""),
    "twenty thousand layers": (
        lambda layers: layers.extend([{"class_name": "Dropout", "config": {}}] * 20_000),
        "only Keras can load it",
    ),
    "a thousand rescalings": (insert_rescalings, "only Keras can load it"),
    "a wide layer on the whole feature map": (
        lambda layers: insert_huge_layer(layers, before=2),
        "only Keras can load it",
    ),
    "an image of no size": (lambda layers: layers[0]["config"].update(batch_shape=[None, -5, 16, 3]), ""),
    "a code layer": (lambda layers: layers[-1].update(class_name="Lambda"), "only Keras can load it"),
}


@pytest.mark.parametrize("hole", HOSTILE)
def test_a_hostile_config_of_a_head_runs_no_code_and_takes_little_memory(
    small_file: str, tmp_path: Path, hole: str, within: Callable[[float], Any]
) -> None:
    change, message = HOSTILE[hole]
    path = shutil.copy(small_file, tmp_path / "dogs.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"]["layers"])
        file.attrs["model_config"] = json.dumps(config)
    if not message:  # the file is read without the wrong value
        assert load_model(path, spec=SMALL, classes=CLASSES).model.output_shape == (None, 3)
        return
    with within(200e6), pytest.raises(ModelFileError, match=re.escape(message)):
        load_model(path, spec=SMALL, classes=CLASSES)


def test_arrays_without_a_layer_and_invalid_layer_names_are_refused(dogs: Callable[[str], str], tmp_path: Path) -> None:
    for group, name, message in (
        ("layers/vars", None, "it has arrays that belong to no layer, at 'layers/vars'"),
        ("layers/dense_9/vars", "evil\nname_1", "'evil\\nname_1' is not the name of a layer"),
    ):
        path = shutil.copy(dogs(".weights.h5"), tmp_path / "dogs.weights.h5")
        with h5py.File(path, "r+") as file:
            file[f"{group}/0"] = np.zeros(3, np.float32)
            if name is not None:
                file[group].attrs["name"] = name
        with pytest.raises(ModelFileError, match=re.escape(message)):
            initialize_network(SPEC, Network(), Classification(), 5, path)


def test_nested_models_with_equal_layers_are_matched_by_their_paths_or_refused(
    tmp_path: Path, save: Save, randomize: Randomize
) -> None:
    def twins() -> keras.Model:
        inputs = keras.Input((16, 16, 3))
        pooled = []
        for name in ("zz", "aa"):
            image = keras.Input((16, 16, 3))
            inner = layers.Conv2D(4, 3, name="c1")(layers.Conv2D(3, 3, name="c0")(image))
            pooled.append(layers.GlobalAveragePooling2D()(keras.Model(image, inner, name=name)(inputs)))
        return keras.Model(inputs, layers.Dense(3, name="answer")(layers.Concatenate()(pooled)))

    model = twins()
    shown = np.random.default_rng(0).normal(0, 1, (4, 16, 16, 3)).astype(np.float32)
    randomize(model, shown)
    spec = ModelSpec(target_size=(16, 16, 3))
    path = save(model, tmp_path / "twins.h5")
    network = initialize_network(spec, OwnModel(twins()), Classification(), 3, path).network
    np.testing.assert_allclose(network.to_logits(shown), model(shown), rtol=1e-3, atol=1e-4)
    with pytest.raises(ModelFileError, match="does not fit"):  # this format has no names of nested models
        initialize_network(spec, OwnModel(twins()), Classification(), 3, save(model, tmp_path / "twins.keras"))


def test_automatically_named_layers_keep_their_order_if_one_is_frozen(tmp_path: Path, save: Save) -> None:
    def make() -> keras.Model:
        image = keras.Input((16, 16, 3))
        x = layers.Conv2D(8, 3)(image)
        for _ in range(3):
            x = layers.Conv2D(8, 3)(x)
        inputs = keras.Input((16, 16, 3))
        pooled = layers.GlobalAveragePooling2D()(keras.Model(image, x)(inputs))
        return keras.Model(inputs, layers.Dense(3, name="d")(pooled))

    model = make()
    model.layers[1].layers[2].trainable = False
    spec = ModelSpec(target_size=(16, 16, 3))
    path = save(model, tmp_path / "m.h5")
    network = initialize_network(spec, OwnModel(make()), Classification(), 3, path).network
    shown = np.random.default_rng(0).normal(0, 1, (4, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(network.to_logits(shown), model(shown), rtol=1e-4, atol=1e-5)


@pytest.fixture
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two kinds of blocks of an EfficientNetV2B0, before which its images are scaled."""
    blocks = keras.src.applications.efficientnet_v2.DEFAULT_BLOCKS_ARGS
    monkeypatch.setitem(blocks, "efficientnetv2-b0", blocks["efficientnetv2-b0"][:2])


@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("is_nested", [True, False])
def test_images_for_a_backbone_with_its_own_rescaling_are_scaled_once(
    tmp_path: Path, save: Save, randomize: Randomize, scales: bool, is_nested: bool
) -> None:
    inputs = keras.Input((32, 32, 3))
    x = inputs if scales else layers.Rescaling(1 / 127.5, -1.0)(inputs)
    options = {"weights": None, "include_top": False, "input_shape": (32, 32, 3), "include_preprocessing": scales}
    if is_nested:
        features = keras.applications.EfficientNetV2B0(**options)(x)
    else:
        features = keras.applications.EfficientNetV2B0(**options, input_tensor=x).output
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(features)), name="efficientnetv2-b0")
    randomize(model, pixels().astype(np.float32))
    trained = load_model(save(model, tmp_path / "m.h5"), spec="efficientnetv2b0", classes=CLASSES)
    expected = keras.ops.softmax(model(pixels().astype(np.float32)))
    check_same(trained.probabilities(pixels()), expected)
