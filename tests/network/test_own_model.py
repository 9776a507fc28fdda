"""Users' own models: final activations and tasks, where the head begins, and layer names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from keras.src.ops.numpy import Multiply

from model_trainer import Call, Classification, ModelSpec, MultiLabel, Network, OwnModel, Run, load_model, predict
from model_trainer.errors import ConfigError
from model_trainer.model_files.files import save_model
from model_trainer.network.build import build_network
from model_trainer.network.layers import find_layers, freeze
from model_trainer.network.own_model import build_own_network, stage_own_model
from model_trainer.network.portable import unportable_names
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.network.training_copy import make_training_copy
from model_trainer.tasks.task import Task
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_validation_step
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline")

MakeRun = Callable[..., Run]
SIZE = (16, 16, 3)
SPEC = ModelSpec(target_size=SIZE)
SMALL = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": SIZE})
layers = keras.layers


def test_a_factory_with_num_classes_gets_the_number_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factory_of_classes.py").write_text(
        "import keras\n"
        "def make(num_classes, width=4):\n"
        "    images = keras.Input((16, 16, 3))\n"
        "    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(width, 3)(images))\n"
        "    return keras.Model(images, keras.layers.Dense(num_classes)(features))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for arguments, num_classes in (({}, 7), ({"width": 8}, 7), ({"num_classes": 3}, 3)):
        network = OwnModel(Call("factory_of_classes.make", **arguments))
        built = build_own_network(network, SPEC, Classification(), num_classes)
        assert built.model.output_shape == (None, num_classes)


def test_the_file_of_a_factory_that_gets_the_number_of_classes_loads(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "factory_without_default.py").write_text(
        "import keras\n"
        "def make(num_classes):\n"
        "    images = keras.Input((16, 16, 3))\n"
        "    return keras.Model(images, keras.layers.Dense(num_classes)(keras.layers.GlobalMaxPooling2D()(images)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = train_model(make_run(network=OwnModel(Call("factory_without_default.make"))))
    assert load_model(result.path, trust=True).probabilities(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 3)


@keras.saving.register_keras_serializable("test_own_model")
class Doubled(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2.0


@keras.saving.register_keras_serializable("test_own_model")
def softmax(x: Any) -> Any:
    return keras.ops.softmax(3.0 * x)


def base_model(rate: float = 0.5) -> keras.Model:
    images = keras.Input(SIZE)
    features = layers.Conv2D(4, 3, name="conv")(images)
    features = layers.BatchNormalization(name="norm")(features)
    features = layers.Dropout(rate, name="drop")(features)
    return keras.Model(images, layers.ReLU(name="top")(features), name="base")


def own(end: Callable[[Any], Any], nested: keras.Model | None = None, **call: Any) -> keras.Model:
    images = keras.Input(SIZE)
    features = layers.GlobalAveragePooling2D(name="pool")((nested or base_model())(images, **call))
    return keras.Model(images, end(features), name="own")


def dense(activation: Any = "softmax") -> Callable[[Any], Any]:
    return lambda x: layers.Dense(3, activation=activation, name="answer")(x)


def stage(model: keras.Model, task: Task | None = None, features: str | None = None, **options: Any) -> TwoStageNetwork:
    return stage_own_model(model, features, SPEC, task or Classification(), 3, **options)


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, *SIZE)).astype(np.float32)


@pytest.mark.parametrize(
    ("end", "task", "message"),
    [
        (dense("sigmoid"), Classification(), "ends in sigmoid, but Classification is trained with softmax. Use task="),
        (
            dense("softmax"),
            MultiLabel(),
            "ends in softmax, but MultiLabel is trained with sigmoid. Use Classification",
        ),
        (dense("softmax"), Classification(activation="sigmoid"), "ends in softmax, but Classification is trained with"),
        (
            dense("softmax"),
            Classification(activation="none"),
            r"ends in softmax, but Classification\(activation=\"none\"\) saves a network that",
        ),
        (dense("relu"), Classification(), "ends in the activation 'relu' of answer, from which the logits"),
        (lambda x: keras.ops.log_softmax(dense(None)(x)), Classification(), "ends in the activation 'log_softmax'"),
        (
            lambda x: layers.Average(name="mean")([dense()(x), layers.Dense(3, activation="softmax", name="b")(x)]),
            Classification(),
            "ends in mean, which is computed from the probabilities of ",
        ),
        (
            lambda x: layers.Flatten(name="flat")(
                layers.Conv2D(3, 1, activation="softmax", name="map")(layers.Reshape((1, 1, 4))(x))
            ),
            Classification(),
            "ends in flat, which is computed from the probabilities of map",
        ),
        (lambda x: layers.ReLU(name="last")(dense(None)(x)), Classification(), "ends in the activation 'ReLU' of last"),
        (
            lambda x: Doubled(name="twice")(dense(None)(x)),
            Classification(),
            "ends in twice, which may return logits or",
        ),
        (dense(softmax), Classification(), "ends in the activation 'softmax of your own'"),
        (lambda x: layers.Softmax(axis=0)(dense(None)(x)), Classification(), "ends in a softmax over axis 0"),
        (
            lambda x: layers.Reshape((1, 3))(dense(None)(x)),
            Classification(),
            r"should return .*, but returns \(None, 1, 3\)",
        ),
    ],
)
def test_a_final_activation_that_contradicts_the_task_is_refused(end: Any, task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=f"`network.model` {message}"):
        stage(own(end), task)


def test_a_last_layer_that_is_used_twice_is_refused() -> None:
    answer = layers.Dense(3, activation="softmax", name="answer")
    with pytest.raises(ConfigError, match="uses 'answer' for its output and elsewhere too"):
        stage(own(lambda x: answer(layers.Dense(4)(answer(layers.Dense(4)(x))))))


def test_a_nested_subclassed_model_is_refused() -> None:
    class Inner(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(ConfigError, match="contains 'inner', a subclassed model"):
        stage(own(dense(), nested=Inner(name="inner")))


def test_a_layer_that_cannot_be_copied_is_refused() -> None:
    class Mine(keras.layers.Layer):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.units = units

        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(ConfigError, match=r"cannot be copied layer by layer, .* needs a get_config\(\)"):
        stage(own(lambda x: dense()(Mine(2)(x))))


@pytest.mark.parametrize(("activation", "task"), [("softmax", Classification()), ("sigmoid", MultiLabel())])
def test_logits_get_the_tasks_activation_and_this_is_logged(
    activation: str, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    logging.get_absl_logger().addHandler(caplog.handler)
    logging.set_verbosity(logging.INFO)
    network = stage(own(dense(None)), task)
    logging.get_absl_logger().removeHandler(caplog.handler)
    logits = network.to_logits(images())
    expected = keras.ops.softmax(logits) if activation == "softmax" else keras.ops.sigmoid(logits)
    np.testing.assert_allclose(network.model(images()), expected, rtol=1e-6)
    assert f"own ends in logits; the .hdf5 adds a {activation}." in caplog.text


@pytest.mark.parametrize("head", ["dense", "layer", "operation"])
def test_a_model_that_ends_in_probabilities_is_trained_on_its_logits(make_run: MakeRun, head: str) -> None:
    def end(x: Any) -> Any:
        if head == "dense":
            return layers.Dense(3, activation="softmax", name="answer")(x)
        logits = layers.Dense(3, name="answer")(x)
        return layers.Softmax()(logits) if head == "layer" else keras.ops.softmax(logits)

    model = own(end, nested=base_model(rate=0.0))
    # Softmax of softmax would lie between log(3) - 2/3 and log(3) + 1/3, whatever the logits.
    model.get_layer("answer").kernel.assign(10.0 * model.get_layer("answer").kernel)
    prepared = prepare(make_run(spec=SPEC, network=OwnModel(model)))
    assert prepared.val_pipeline is not None
    step = make_validation_step(prepared.step_setup)
    losses, expected = [], []
    for batch in prepared.val_pipeline.validation():
        loss, count = step(batch, len(batch[1]), tf.constant(False)).sums["loss"].numpy()
        losses.append(loss / count)
        probabilities = model(prepared.run.spec.preprocess(batch[0]), training=False)
        expected.append(float(tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(batch[1], probabilities))))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert max(losses) > 2.0


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: own(dense()), (None, 14, 14, 4)),
        (lambda: keras.Sequential([keras.Input(SIZE), layers.Flatten(), layers.Dense(3, "softmax")]), (None, 768)),
        (lambda: own(lambda x: dense()(layers.Dense(5, "relu")(x))), (None, 14, 14, 4)),
        (lambda: keras.applications.MobileNet(weights=None, classes=3, input_shape=(64, 64, 3)), (None, 2, 2, 1024)),
    ],
    ids=["nested", "flat", "two dense", "mobilenet with its top"],
)
def test_the_head_begins_after_the_last_feature_map(make: Callable[[], keras.Model], shape: tuple[int, ...]) -> None:
    model = make()
    network = stage_own_model(model, None, ModelSpec(target_size=model.input_shape[1:]), Classification(), 3)
    assert tuple(network.features.shape) == shape
    assert network.head.weights


def test_the_head_begins_after_the_declared_layer() -> None:
    network = stage(own(lambda x: dense()(layers.Dense(5, "relu", name="embedding")(x))), features="embedding")
    assert tuple(network.features.shape) == (None, 5)
    assert [layer.name for layer in network.head.layers if layer.weights] == ["answer"]


@pytest.mark.parametrize(
    ("features", "message"),
    [("pol", "has no such layer. Did you mean 'pool'"), ("side", "has a path to its output that does not")],
)
def test_a_features_layer_that_is_missing_or_bypassed_is_refused(features: str, message: str) -> None:
    def end(x: Any) -> Any:
        return dense()(layers.Concatenate()([x, layers.Dense(2, name="side")(x)]))

    with pytest.raises(ConfigError, match=f"`network.features` is '{features}', .*{message}"):
        stage(own(end), features=features)


def test_a_frozen_backbone_of_an_own_model_leaves_its_head_trainable() -> None:
    network = stage(own(dense()))
    freeze(network.model, network, OwnModel(own(dense()), freeze="backbone"))
    assert {variable.path for variable in network.model.trainable_variables} == {"answer/kernel", "answer/bias"}


def test_freezing_the_backbone_of_a_model_without_one_is_refused() -> None:
    model = keras.Sequential([keras.Input(SIZE), layers.Flatten(), layers.Dense(3, activation="softmax")])
    network = stage(model)
    with pytest.raises(ConfigError, match="sequential.* has no weights before its head. Name the layers"):
        freeze(network.model, network, OwnModel(model, freeze="backbone"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("conv",), ["conv"]),
        (("c*", "norm"), ["conv", "norm"]),
        (("base",), ["conv", "norm", "drop", "top"]),
        ((1,), ["conv", "norm", "drop", "top"]),
        ((-1,), ["answer"]),
    ],
)
def test_layers_in_nested_models_are_found_by_name_and_position(
    names: tuple[int | str, ...], expected: list[str]
) -> None:
    assert find_layers(stage(own(dense())), names, "network.freeze") == expected


def test_layers_of_the_same_name_in_two_models_get_different_names() -> None:
    image = keras.Input(SIZE)
    first = base_model()
    copied = base_model()
    second = keras.Model(copied.inputs[0], copied.outputs[0], name="other")
    features = [layers.GlobalAveragePooling2D()(each(image)) for each in (first, second)]
    network = stage(keras.Model(image, dense()(layers.Concatenate()(features)), name="own"))
    names_by_model = [find_layers(network, (name,), "network.freeze") for name in ("base", "other")]
    assert len(set(names_by_model[0]) | set(names_by_model[1])) == 8
    assert sorted(find_layers(network, ("conv",), "network.freeze")) == sorted(names[0] for names in names_by_model)


def test_layers_frozen_by_the_user_stay_frozen(make_run: MakeRun) -> None:
    base = base_model()
    base.trainable = False
    prepared = prepare(make_run(spec=SPEC, network=OwnModel(own(dense(), nested=base))))
    trainable = {variable.path for variable in prepared.step_setup.network.model.trainable_variables}
    assert trainable == {"answer/kernel", "answer/bias"}
    # A step updates or restores moving averages, not frozen kernels.
    copy = prepared.step_setup.network
    assert {variable.name for variable in copy.moving_statistics.variables} == {"moving_mean", "moving_variance"}
    assert not copy.moving_statistics.any_trainable
    assert "kernel" not in {variable.name for variable in copy.statistics}


def test_batch_renormalization_remains_the_layer_of_keras() -> None:
    image = keras.Input(SIZE)
    pooled = layers.GlobalAveragePooling2D()(layers.BatchNormalization(renorm=True, name="renorm")(image))
    copy = make_training_copy(stage(keras.Model(image, dense()(pooled))), "float32", seed=0)
    layer = copy.network.model.get_layer("renorm")
    assert type(layer) is layers.BatchNormalization
    assert layer.renorm


def test_layers_in_nested_models_compute_in_the_runs_precision() -> None:
    copy = make_training_copy(stage(own(dense())), "mixed_bfloat16", seed=0)
    policies = {layer.name: layer.dtype_policy.name for layer in copy.model.layers if layer.name != "input_layer"}
    assert policies["conv"] == policies["norm"] == "mixed_bfloat16"
    assert policies["answer"] == policies["probabilities"] == "float32"


def test_batch_normalization_in_nested_models_is_synchronized() -> None:
    copy = make_training_copy(stage(own(dense())), "float32", seed=0, synchronized_batch_norm=True)
    assert copy.model.get_layer("norm").synchronized


def test_dropout_in_nested_models_is_a_function_of_step_and_replica() -> None:
    copy = make_training_copy(stage(own(dense())), "float32", seed=0)
    features = keras.Model(copy.model.inputs[0], copy.model.get_layer("drop").output)
    shown = images()

    def masks(step: int, training: bool = True) -> np.ndarray:
        copy.seeds.step = tf.constant(step, tf.int64)
        return np.asarray(features(shown, training=training)) == 0

    np.testing.assert_array_equal(masks(3), masks(3))
    assert (masks(3) != masks(4)).any()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    copy.seeds.step = tf.constant(3, tf.int64)
    with strategy.scope():
        copy = make_training_copy(stage(own(dense())), "float32", seed=0)
        features = keras.Model(copy.model.inputs[0], copy.model.get_layer("drop").output)
    first, second = strategy.experimental_local_results(
        strategy.run(lambda: tf.cast(features(tf.constant(shown), training=True) == 0, tf.float32))
    )
    assert (first.numpy() != second.numpy()).any()


@pytest.mark.parametrize("honoured", [True, False])
def test_a_nested_model_called_in_inference_mode_stays_in_it_while_the_rest_trains(honoured: bool) -> None:
    call = {"training": False} if honoured else {}
    copy = make_training_copy(stage(own(dense(), **call)), "float32", seed=0)
    trained, moments = copy.training_pass(images())
    is_same = np.allclose(trained[0], copy.outputs(images(), training=False)[0], rtol=1e-5, atol=1e-6)
    assert (is_same, not moments) == (honoured, honoured)
    assert [w.shape for w in copy.model.trainable_variables] == [
        w.shape for w in make_training_copy(stage(own(dense())), "float32", seed=0).model.trainable_variables
    ]


def test_a_layer_that_plain_keras_cannot_load_is_reported_before_training(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    logging.get_absl_logger().addHandler(caplog.handler)
    prepare(make_run(spec=SPEC, network=OwnModel(own(lambda x: dense()(Doubled(name="twice")(x))))))
    logging.get_absl_logger().removeHandler(caplog.handler)
    assert "PLAIN KERAS WILL NOT LOAD THE .hdf5: the network contains twice (" in caplog.text


def test_an_operation_that_cannot_be_loaded_again_is_refused_before_training(make_run: MakeRun) -> None:
    run = make_run(spec=SPEC, network=OwnModel(own(lambda x: dense()(keras.ops.log(keras.ops.abs(x) + 1.0)))))
    with pytest.raises(
        ConfigError,
        match=r"contains absolute.* \(keras.ops.Absolute\), log.* which Keras can save in an .hdf5 but not load",
    ):
        prepare(run)


def test_an_own_model_that_ends_in_logits_predicts_probabilities(make_run: MakeRun, colors: Path) -> None:
    result = train_model(make_run(spec=SPEC, network=OwnModel(own(dense(None)))))
    (answer,) = predict(result.path, sorted((colors / "val" / "red").iterdir())[0], trust=True)
    probabilities = [each["probability"] for each in answer["predictions"]]
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)
    assert min(probabilities) >= 0


def test_a_file_of_an_older_version_that_ends_in_logits_predicts_probabilities(tmp_path: Path) -> None:
    # Such a version saved the user's own model as it was, whatever it ended in.
    model = own(dense(None))
    description = {
        "format": 1, **SPEC.to_dict(), "task": Classification().to_dict(), "classes": ["a", "b", "c"],
        "network": OwnModel(model).to_dict(),
    }  # fmt: skip
    save_model(model, tmp_path / "old.hdf5", description)
    trained = load_model(tmp_path / "old.hdf5", trust=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SIZE)).astype(np.uint8)
    expected = keras.ops.softmax(model(pixels.astype(np.float32)))
    np.testing.assert_allclose(trained.probabilities(pixels), expected, rtol=1e-4, atol=1e-6)


def test_the_backbone_of_a_spec_has_all_layers_of_keras_before_the_head() -> None:
    spec = ModelSpec.named("mobilenet_v2", target_size=[32, 32, 3], kwargs={"alpha": 0.35})
    network = build_network(spec, Network(), Classification(), 3)
    assert network.backbone.output_shape == (None, 1, 1, 1280)
    assert network.head_layers == ("head_pooling", "head_dropout", "logits", "probabilities")


def attention_base(*, by_name: bool = False) -> keras.Model:
    """A model with attention, whose layer creates sublayers such as dropout when it is built."""
    inputs = keras.Input(SIZE)
    tokens = layers.Reshape((16, 16))(layers.Conv2D(16, 4, strides=4, name="patches")(inputs))
    attention = layers.MultiHeadAttention(2, 8, dropout=0.5, name="attention")
    attended = attention(tokens, value=tokens) if by_name else attention(tokens, tokens)
    return keras.Model(inputs, layers.LayerNormalization(name="norm")(layers.Add()([tokens, attended])), name="base")


def attending(base: keras.Model, **call: Any) -> keras.Model:
    inputs = keras.Input(SIZE)
    return keras.Model(inputs, dense()(layers.GlobalAveragePooling1D()(base(inputs, **call))), name="own")


@pytest.mark.parametrize("by_name", [False, True])
def test_attention_in_a_base_called_in_inference_mode_stays_in_it(by_name: bool) -> None:
    copy = make_training_copy(stage(attending(attention_base(by_name=by_name), training=False)), "float32", seed=0)
    answers = [np.asarray(copy.outputs(images(), training=mode)[0]) for mode in (True, False)]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)


def test_dropout_inside_a_layer_is_a_function_of_the_step() -> None:
    network = stage(attending(attention_base()))
    copy = make_training_copy(network, "float32", seed=0)
    plain = network.to_logits(images())
    np.testing.assert_allclose(copy.outputs(images(), training=False)[0], plain, rtol=1e-4, atol=1e-5)

    def logits(step: int) -> np.ndarray:
        copy.seeds.step = tf.constant(step, tf.int64)
        return np.asarray(copy.outputs(images(), training=True)[0])

    np.testing.assert_array_equal(logits(1), logits(1))
    assert (logits(1) != logits(2)).any()


def test_an_operation_called_with_different_constants_computes_the_same() -> None:
    multiply = Multiply()
    model = own(lambda x: dense(None)(multiply(multiply(x, 2.0), 3.0)))
    np.testing.assert_allclose(stage(model).to_logits(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_a_model_that_casts_integer_images_computes_the_same() -> None:
    pixels = keras.Input(SIZE, dtype="uint8")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(keras.ops.cast(pixels, "float32") / 255.0))
    model = keras.Model(pixels, dense(None)(x), name="own")
    shown = np.random.default_rng(0).integers(0, 256, (4, *SIZE)).astype(np.uint8)
    np.testing.assert_allclose(stage(model).to_logits(shown), model(shown), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: keras.ops.gelu(x, approximate=False),
        lambda x: keras.ops.leaky_relu(x, negative_slope=0.3),
        lambda x: keras.ops.elu(x, alpha=0.7),
        lambda x: -x,
        lambda x: 1.0 - x,
        lambda x: x * np.array([1.0, -2.0, 3.0, 0.5], np.float32),
        lambda x: keras.ops.reshape(x, (-1, 2, 2)),
    ],
)
def test_common_operations_become_equivalent_layers(operation: Any) -> None:
    model = own(lambda x: dense(None)(layers.Flatten()(operation(x))))
    network = stage(model)
    np.testing.assert_allclose(network.to_logits(images()), model(images()), rtol=1e-4, atol=1e-5)
    assert unportable_names(network.model) == []


def test_logits_multiplied_by_a_sigmoid_gate_are_accepted_as_logits() -> None:
    def end(x: Any) -> Any:
        return layers.Multiply()([dense(None)(x), layers.Dense(3, activation="sigmoid")(x)])

    model = own(end)
    np.testing.assert_allclose(stage(model).to_logits(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_an_entirely_frozen_model_is_refused(make_run: MakeRun) -> None:
    model = own(dense())
    model.trainable = False
    with pytest.raises(ConfigError, match="`network` is own, whose layers are all frozen"):
        prepare(make_run(spec=SPEC, network=OwnModel(model)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda a, b: keras.Model([a, b], dense()(layers.Flatten()(a + b))),
            "should have one input, for images; it has 2",
        ),
        (lambda a, b: keras.Model(a, layers.Dense(1)(layers.Flatten()(a))), "returns 1 value for each image, but"),
    ],
)
def test_inputs_and_outputs_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(make(keras.Input(SIZE), keras.Input(SIZE)))


def test_a_file_of_an_older_version_with_a_final_activation_that_is_refused_now_still_predicts(tmp_path: Path) -> None:
    model = own(dense("sigmoid"))
    description = {
        "format": 1, **SPEC.to_dict(), "task": Classification().to_dict(), "classes": ["a", "b", "c"],
        "network": OwnModel(model).to_dict(),
    }  # fmt: skip
    save_model(model, tmp_path / "old.hdf5", description)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SIZE)).astype(np.uint8)
    answers = load_model(tmp_path / "old.hdf5", trust=True).probabilities(pixels)
    np.testing.assert_allclose(answers, model(pixels.astype(np.float32)), rtol=1e-4, atol=1e-6)


def test_a_normalization_inside_a_wrapper_keeps_its_statistics() -> None:
    image = keras.Input((8, 8, 3))
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(100, 30, (16, 8, 8, 3)).astype(np.float32))
    inner = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(norm(image))))
    inputs = keras.Input(SIZE)
    wrapped = layers.TimeDistributed(inner)(layers.Reshape((4, 8, 8, 3))(inputs))
    model = keras.Model(inputs, dense(None)(layers.Flatten()(wrapped)), name="own")
    network = stage(model)
    copy = make_training_copy(network, "float32", seed=0)
    shown = 100 + 30 * images()
    for logits in (network.to_logits(shown), copy.outputs(shown, training=False)[0]):
        np.testing.assert_allclose(logits, model(shown), rtol=1e-3, atol=1e-4)


def test_a_dropout_layer_called_twice_draws_different_masks() -> None:
    inputs = keras.Input(SIZE)
    drop = layers.Dropout(0.5)
    ones = layers.Rescaling(0.0, 1.0)(inputs)
    difference = layers.Subtract()([drop(ones), drop(ones)])
    moved = layers.RandomTranslation(0.4, 0.4, name="moved")(inputs)
    x = layers.Concatenate()([layers.Flatten()(difference), layers.Flatten()(moved)])
    copy = make_training_copy(stage(keras.Model(inputs, dense(None)(x), name="own")), "float32", seed=0)
    kernel = copy.model.get_layer("answer").kernel
    values = np.zeros(kernel.shape, np.float32)
    values[: 16 * 16 * 3, 0] = np.random.default_rng(0).normal(0, 1, 16 * 16 * 3)
    kernel.assign(values)

    def mask_sums(step: int) -> np.ndarray:
        copy.seeds.step = tf.constant(step, tf.int64)
        return np.asarray(copy.outputs(images(), training=True)[0])[:, 0]

    assert (mask_sums(0) != 0).all()  # the same mask twice would leave nothing
    np.testing.assert_array_equal(mask_sums(0), mask_sums(0))


def test_the_saved_network_is_float32_whatever_the_global_policy() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        networks = [stage(own(lambda x: dense(None)(x / 2.0))), build_network(SMALL, Network(), Classification(), 3)]
    finally:
        keras.config.set_dtype_policy("float32")
    for network in networks:
        assert {layer.dtype_policy.name for layer in network.model.layers} == {"float32"}


def test_a_custom_block_without_a_training_argument_stays_in_inference_mode() -> None:
    copy = make_training_copy(stage(own(dense(), nested=block_model(), training=False)), "float32", seed=0)
    answers = [np.asarray(copy.outputs(images(), training=mode)[0]) for mode in (True, False)]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)


def block_model() -> keras.Model:
    inputs = keras.Input(SIZE)
    return keras.Model(inputs, Block(name="block")(inputs), name="base")


class Block(keras.layers.Layer):
    def build(self, input_shape: Any) -> None:
        self.conv = layers.Conv2D(4, 3)
        self.norm = layers.BatchNormalization()
        self.conv.build(input_shape)
        self.norm.build((None, 14, 14, 4))

    def call(self, inputs: Any) -> Any:
        return self.norm(self.conv(inputs))


def test_layers_of_a_sequential_model_are_counted_without_its_input() -> None:
    model = keras.Sequential(
        [keras.Input(SIZE), layers.Conv2D(4, 3, name="c0"), layers.GlobalAveragePooling2D(), layers.Dense(3, name="d")]
    )
    assert find_layers(stage(model), (0, -1), "network.freeze") == ["c0", "d"]


def test_integer_images_with_a_preprocessing_to_floats_are_refused() -> None:
    pixels = keras.Input(SIZE, dtype="uint8")
    model = keras.Model(pixels, dense()(layers.Flatten()(layers.Rescaling(1 / 255.0)(pixels))))
    spec = ModelSpec(target_size=SIZE, preprocess_func="between_plus_minus_1")
    with pytest.raises(ConfigError, match="takes uint8 images, but `spec.preprocess_func` 'between_plus_minus_1'"):
        stage_own_model(model, None, spec, Classification(), 3)
