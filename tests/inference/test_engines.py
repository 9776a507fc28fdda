"""Engines against the Keras model: TensorFlow with constant weights, and OpenVINO."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Classification, ModelSpec, MultiLabel
from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.inference import choose
from model_trainer.inference.choose import agree, choose_for_many, make_engine, sample_images, with_engine
from model_trainer.inference.keras_graph import KerasGraph
from model_trainer.inference.openvino import ConcurrentOpenVINO, OpenVINO
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.testing import small_backbone

pytestmark = pytest.mark.long

SIZE = (32, 32, 3)
SPEC = ModelSpec(target_size=SIZE, preprocess_func="between_plus_minus_1")
BGR = ModelSpec(target_size=SIZE, preprocess_func="bgr_mean_subtraction", preprocess_args=[100.0, 110.0, 120.0])
ENGINES = [KerasGraph, OpenVINO]


def randomized(model: keras.Model) -> keras.Model:
    """Weights and batch statistics for which images differ in their outputs."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(random.normal(0, 1.5 / np.sqrt(np.prod(variable.shape[:-1])), variable.shape))
        elif "moving_variance" in variable.path or "gamma" in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


def classifier(activation: str | None = "softmax", scale: float = 1.0) -> keras.Model:
    images = keras.Input(SIZE)
    features = small_backbone(SIZE, batch_normalization=True)(keras.layers.Rescaling(scale)(images))
    features = keras.layers.GlobalAveragePooling2D()(features)
    return randomized(keras.Model(images, keras.layers.Dense(3, activation=activation)(features)))


def nested() -> keras.Model:
    images = keras.Input(SIZE)
    features = keras.layers.Activation("silu")(small_backbone(SIZE, batch_normalization=True)(images))
    features = keras.layers.Flatten()(keras.layers.DepthwiseConv2D(3)(features))
    return randomized(keras.Model(images, keras.layers.Dense(3, activation="softmax")(features)))


def two_outputs() -> keras.Model:
    backbone = small_backbone(SIZE)
    features = keras.layers.GlobalAveragePooling2D()(backbone.output)
    outputs = [keras.layers.Dense(count, activation="sigmoid")(features) for count in (3, 2)]
    return randomized(keras.Model(backbone.input, outputs))


def trained(
    model: keras.Model, task: Classification | MultiLabel | None = None, spec: ModelSpec = SPEC
) -> TrainedModel:
    return TrainedModel(model, spec, task or Classification(), ("a", "b", "c"), Path("model.hdf5"))


MODELS = {
    "softmax": lambda: trained(classifier()),
    "reversed channels": lambda: trained(classifier(scale=1 / 127), spec=BGR),
    "logits": lambda: trained(classifier(None), Classification(activation="none")),
    "tags": lambda: trained(classifier("sigmoid"), MultiLabel()),
    "nested": lambda: trained(nested()),
    "two outputs": lambda: trained(two_outputs(), MultiLabel()),
}


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return trained(classifier())


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return sample_images(trained(classifier()), 8)


@pytest.fixture(scope="module")
def openvino(model: TrainedModel) -> OpenVINO:
    return OpenVINO(model)


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_an_engine_computes_the_probabilities_of_the_keras_model(
    make: type[KerasGraph | OpenVINO], name: str, images: np.ndarray
) -> None:
    plain = MODELS[name]()
    expected = plain.probabilities(images)
    assert np.ptp(expected, axis=0).max() > 0.01  # images differ
    actual = replace(plain, engine=make(plain)).probabilities(images)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", ENGINES)
def test_an_engine_keeps_the_order_and_number_of_several_outputs(
    make: type[KerasGraph | OpenVINO], images: np.ndarray
) -> None:
    plain = trained(two_outputs(), MultiLabel())
    assert [output.shape for output in make(plain)(images)] == [(8, 3), (8, 2)]


@pytest.mark.parametrize("make", ENGINES)
def test_threads_get_the_results_of_their_own_images(
    make: type[KerasGraph | OpenVINO], model: TrainedModel, images: np.ndarray
) -> None:
    engine = make(model)
    expected = [engine(images[[number]]) for number in range(4)]
    wrong: list[int] = []

    def compute(number: int) -> None:
        for _ in range(30):
            if not np.array_equal(engine(images[[number]]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_call_does_not_format_its_images_as_text(
    model: TrainedModel, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = KerasGraph(model)
    formatted: list[object] = []
    monkeypatch.setattr(type(tf.constant(0)), "__repr__", lambda tensor: str(formatted.append(tensor)))
    engine(images)
    assert not formatted


def test_results_of_openvino_survive_the_next_batch(openvino: OpenVINO, images: np.ndarray) -> None:
    first = openvino(images[:1])
    before = first.copy()
    openvino(images[1:2])
    np.testing.assert_array_equal(first, before)


def test_openvino_computes_in_float32_unless_asked(openvino: OpenVINO) -> None:
    assert openvino._compiled.precision == "f32"


def test_openvino_has_only_the_outputs_of_the_network(images: np.ndarray) -> None:
    # SiLU has a custom gradient, for which TensorFlow keeps its input.
    assert len(OpenVINO(trained(nested()))._model.outputs) == 1


def test_openvino_sends_no_telemetry(openvino: OpenVINO) -> None:
    assert "openvino_telemetry" not in sys.modules
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_bfloat16_in_keras_changes_probabilities_a_little(model: TrainedModel, images: np.ndarray) -> None:
    exact, rounded = (
        replace(model, engine=KerasGraph(model, precision)).probabilities(images)
        for precision in ("float32", "bfloat16")
    )
    assert 1e-5 < np.abs(exact - rounded).max() < 0.05


def test_auto_chooses_the_faster_engine(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, name in (([0.2, 0.1], "openvino"), ([0.1, 0.2], "keras")):
        monkeypatch.setattr(choose, "measure", lambda engines, images, seconds=seconds: seconds)
        chosen = with_engine(model).engine
        assert chosen is not None
        assert chosen.name == name


def test_auto_chooses_tensorflow_if_openvino_cannot_convert_the_model(
    model: TrainedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no such operation\nand a long text")

    monkeypatch.setattr(choose, "OpenVINO", fail)
    chosen = with_engine(model).engine
    assert chosen is not None
    assert chosen.name == "keras"
    with pytest.raises(ConfigError, match="cannot compute model.hdf5: no such operation. Use the engine keras"):
        with_engine(model, "openvino")


def test_the_error_names_the_operation_that_openvino_lacks() -> None:
    spec = ModelSpec(target_size=SIZE, preprocess_func="tests.inference.test_engines.own_preprocessing")
    with pytest.raises(ConfigError, match=r"No conversion rule found for operations: PyFunc. Use the engine keras"):
        make_engine(trained(classifier(), spec=spec), "openvino")


def test_a_missing_openvino_is_an_error_that_names_the_command(
    model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"OpenVINO engines need openvino. Run: .venv/bin/pip install -e '.\[openv"):
        with_engine(model, "openvino")
    chosen = with_engine(model).engine
    assert chosen is not None
    assert chosen.name == "keras"


def test_outputs_agree_up_to_rounding_but_not_to_a_tenth_of_a_percent() -> None:
    outputs = np.random.default_rng(0).dirichlet(np.ones(5), 8).astype(np.float32)
    assert agree([outputs * (1 + 1e-6)], [outputs], [outputs])
    assert not agree([outputs * (1 + 1e-3)], [outputs], [outputs])


def test_a_difference_among_improbable_classes_is_detected() -> None:
    outputs = np.array([[1.0, 1e-8, 1e-9]], np.float32)
    assert not agree([outputs[:, [0, 2, 1]]], [outputs], [outputs])


def test_no_engine_is_made_for_few_images_unless_one_is_named(model: TrainedModel) -> None:
    assert choose_for_many(model, 10).engine is None
    named = choose_for_many(model, 10, "keras").engine
    assert named is not None
    assert choose_for_many(replace(model, engine=named), 10, "openvino").engine is named


def test_sample_images_differ(model: TrainedModel) -> None:
    assert len(np.unique(sample_images(model, 6).reshape(6, -1), axis=0)) == 6


def test_an_engine_can_be_made_of_a_model_with_preprocessing_in_python(images: np.ndarray) -> None:
    spec = ModelSpec(target_size=SIZE, preprocess_func="tests.inference.test_engines.own_preprocessing")
    plain = TrainedModel(classifier(), spec, Classification(), ("a", "b", "c"), Path("model.hdf5"))
    expected = plain.probabilities(images)
    np.testing.assert_allclose(with_engine(plain).probabilities(images), expected, rtol=1e-5, atol=1e-6)


def own_preprocessing(images: np.ndarray) -> np.ndarray:
    """NumPy's own, which a graph can only call in Python."""
    return np.asarray(images.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_openvino_for_concurrent_calls_computes_the_same(
    openvino: OpenVINO, images: np.ndarray, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    monkeypatch.setattr(ConcurrentOpenVINO, "_best_batch_size", lambda self, max_batch_size: batch_size)
    engine = openvino.for_concurrent_calls(8)
    assert engine is not None
    assert (engine.num_calls, engine.batch_size, engine.precision) == (2, batch_size, "float32")
    expected = openvino(images)
    for count in (1, 3, len(images)):
        np.testing.assert_allclose(engine(images[:count]), expected[:count], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(engine.alone(images[:1]), expected[:1], rtol=1e-5, atol=1e-6)


def test_the_best_batch_size_is_the_smallest_with_almost_the_least_time_per_image(
    openvino: OpenVINO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    seconds = {1: 2.0, 2: 1.5, 4: 1.05, 6: 1.0}
    monkeypatch.setattr(ConcurrentOpenVINO, "_seconds_per_image", lambda self, images: seconds[len(images)])
    engine = openvino.for_concurrent_calls(6)
    assert engine is not None
    assert engine.batch_size == 4


def test_there_is_no_engine_for_concurrent_calls_on_one_core(
    openvino: OpenVINO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    assert openvino.for_concurrent_calls(8) is None


def test_threads_may_make_engines_at_the_same_time(model: TrainedModel) -> None:
    errors: list[BaseException] = []

    def make() -> None:
        try:
            OpenVINO(model)
        except BaseException as error:  # noqa: BLE001  # whatever it is
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.slow  # in a separate process, which would crash
def test_signals_are_handled_after_another_thread_has_freed_the_network() -> None:
    program = """
import gc, os, signal, threading
import numpy as np, openvino, openvino.opset13 as operations
from model_trainer.inference.openvino import _Compiled

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
images = operations.parameter([-1, 8, 8, 3], np.uint8)
networks = [_Compiled(openvino.Model([operations.convert(images, "f32")], [images]), 0, "float32", 1)]
thread = threading.Thread(target=networks.clear)
thread.start()
thread.join()
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
