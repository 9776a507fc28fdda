"""A network computes the same everywhere: that of every row of the table, and users' own models.

Every variable has a random value of realistic spread. The same logits come from the reference, the plain network, its
two stages, the training copy, the `.hdf5` in plain Keras, `load_model`, a checkpoint, and two devices. They are
compared relative to the spread that they have over images: where only some input normalization is missing, an untrained
network still gives nearly the same probabilities.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from model_trainer import (
    Classification,
    Hardware,
    ModelSpec,
    MultiLabel,
    Output,
    OwnModel,
    Run,
    load_model,
)
from model_trainer.dotted import import_dotted
from model_trainer.model_files.weights import InitializedNetwork, initialize_network
from model_trainer.network.graph import assign_weights, finalize
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.specs import TABLE
from model_trainer.training import prepare as prepare_module
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.state import capture, restore
from model_trainer.training.checkpoints.store import read_newest
from model_trainer.training.loop import EpochPosition, make_loop
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.prepare import prepare
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import StopRequest

pytestmark = pytest.mark.usefixtures("short_pipeline")

MakeRun = Callable[..., Run]
Randomize = Callable[[keras.Model, np.ndarray], None]
Logits = list[np.ndarray]  # of each output

NUM_COMPARED = 4  # of the images that moving averages were made of
ROUNDING = 1e-3  # of the spread; float32 in a hundred layers
# The kernel of batch normalization rounds differently from Keras' operations. Both are as far from float64, which a
# random ResNet50 magnifies to 0.006 (Keras) and 0.007 (the kernel), and MobileNetV2 to 0.012 and 0.009.
KERNEL_ROUNDING = 2e-2
# Keras' own float32 is as far as 0.07 from float64 in this one of a thousand layers, with these random weights.
KERNEL_ROUNDING_OF = {"efficientnetv2l": 0.2}

# The other rows are tested with -m slow.
FAMILIES = ["mobilenet_v3_small"]
ROWS = [pytest.param(name, marks=[] if name in FAMILIES else [pytest.mark.slow]) for name in TABLE]


class PlainKeras:
    """Keras in a process that cannot import Model Trainer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("plain_keras.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip

    def answers(self, model: Path, images: np.ndarray) -> Logits:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        np.save(self._folder / "images.npy", images)
        job = {"model": model, "images": self._folder / "images.npy", "answers": self._folder / "answers.npz"}
        self._process.stdin.write(json.dumps({key: str(path) for key, path in job.items()}) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == "done"
        with np.load(self._folder / "answers.npz") as arrays:
            return list(arrays.values())

    def close(self) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class Bench:
    """What each comparison needs."""

    make_run: MakeRun
    randomize: Randomize
    plain_keras: PlainKeras


@pytest.fixture
def bench(make_run: MakeRun, randomize: Randomize, plain_keras: PlainKeras) -> Bench:
    return Bench(make_run, randomize, plain_keras)


@pytest.fixture(scope="module")
def plain_keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainKeras]:
    keras_alone = PlainKeras(tmp_path_factory.mktemp("plain_keras"))
    yield keras_alone
    keras_alone.close()


def images_of(spec: ModelSpec, count: int = 8) -> np.ndarray:
    """Images that differ in color, contrast and pattern, preprocessed."""
    random = np.random.default_rng(1)
    colors = random.uniform(20, 235, (count, 1, 1, 3))
    contrast = random.uniform(5, 60, (count, 1, 1, 1))
    pixels = np.clip(colors + contrast * random.normal(0, 1, (count, *spec.target_size)), 0, 255)
    return np.asarray(spec.preprocess(pixels.astype(np.uint8)))


def as_list(outputs: Any) -> Logits:
    return [np.asarray(output, np.float64) for output in tf.nest.flatten(outputs)]


def to_logits(outputs: Logits, activation: str) -> Logits:
    """Logits from probabilities; those of a softmax up to a constant that all logits share."""
    if activation == "softmax":
        return [np.log(output) for output in outputs]
    return [np.log(output) - np.log1p(-output) for output in outputs] if activation == "sigmoid" else outputs


def assert_same(actual: Logits, expected: Logits, activation: str, where: str, rounding: float) -> None:
    assert len(actual) == len(expected)
    for ours, reference in zip(actual, expected, strict=True):
        if activation == "softmax":
            ours, reference = (each - each.mean(axis=-1, keepdims=True) for each in (ours, reference))
        spread = reference.std(axis=0).mean()
        assert spread > 0.01, f"the images give all the same: {spread}"
        difference = np.abs(ours - reference).max() / spread
        assert difference < rounding, f"{where}: {difference:.2g} of the spread"


def check_parity(
    run: Run,
    fill: Callable[[TwoStageNetwork], None],
    reference: Callable[[np.ndarray], Logits],
    images: np.ndarray,
    bench: Bench,
    kernel_rounding: float = KERNEL_ROUNDING,
) -> None:
    """Asserts that the logits are those of `reference` everywhere.

    Args:
        fill: gives the plain network its weights.
        reference: images to logits.
        kernel_rounding: how far the training copy may be from it, relative to the spread.
    """
    activation = run.task.head_activation
    expected = reference(images)

    def same(outputs: Any, where: str, of: str = "none", rounding: float = ROUNDING) -> None:
        assert_same(to_logits(as_list(outputs), of), expected, activation, where, rounding)

    def filled(*arguments: Any) -> InitializedNetwork:
        initialized = initialize_network(*arguments)
        fill(initialized.network)
        return initialized

    run = run.changed("hardware", Hardware(platform="cpu", devices=2))
    with mock.patch.object(prepare_module, "initialize_network", filled):
        prepared = prepare(run)
    plain, copy = prepared.plain.network, prepared.step_setup.network
    same(plain.to_logits(images), "plain network")
    same(plain.model(images), "plain network", activation)
    same(plain.head(plain.backbone(images)), "backbone and head")
    same(copy.outputs(images, training=False), "training copy", rounding=kernel_rounding)
    same(
        copy.network.head(copy.network.backbone(images)),
        "backbone and head of the training copy",
        rounding=kernel_rounding,
    )

    folder = RunFolder.make(run, prepared.description)
    folder.save_model(plain.model, "final_model")
    same(bench.plain_keras.answers(folder.path / "final_model.hdf5", images), "the .hdf5 in plain Keras", activation)
    same(load_model(folder.path, trust=True).model(images), "load_model", activation)

    # A checkpoint goes back into a network of zeros, which then computes on both devices.
    strategy = prepared.step_setup.strategy
    with folder.logs() as logs, Saver(folder.path / "checkpoints") as saver:
        loop = make_loop(prepared, folder, logs, Console(quiet=True), StopRequest(), saver)
        saver.save(lambda: capture(loop, EpochPosition(0, 0, MetricAccumulator(run.task.additive_metrics))))
        saver.wait()
        for variable in copy.model.weights:
            variable.assign(keras.ops.zeros_like(variable))
        finalize(copy.model.layers)
        checkpoint = read_newest(folder.path / "checkpoints")
        assert checkpoint is not None
        restore(loop, checkpoint)
    halves = np.array_split(images, 2)
    # Batches of another size may be rounded by another kernel, which a hundred random layers magnify.
    expected = [np.concatenate(half_logits) for half_logits in zip(*map(reference, halves), strict=True)]
    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(halves[context.replica_id_in_sync_group])
    )
    outputs_by_device = strategy.run(lambda half: copy.outputs(half, training=False), args=(halves,))
    outputs = [np.concatenate(strategy.experimental_local_results(each)) for each in outputs_by_device]
    same(outputs, "after a checkpoint, on two devices", rounding=kernel_rounding)


def spec_of(name: str) -> ModelSpec:
    least = max(32, TABLE[name].minimum_size)
    return ModelSpec.named(name, target_size=[least, least, 3])


def check_row(bench: Bench, spec: ModelSpec, reference: keras.Model, rounding: float = KERNEL_ROUNDING) -> None:
    """Parity with Keras' own class, and a head that NumPy computes."""
    images = images_of(spec)[:NUM_COMPARED]
    features = reference(images, training=False).numpy()
    random = np.random.default_rng(2)
    kernel = random.normal(0, 1, (features.shape[-1], 3)) * 2.0 / max(1e-6, features.mean(axis=(1, 2)).std())
    kernel /= np.sqrt(features.shape[-1])
    bias = random.normal(0, 0.1, 3)

    def logits_of(images: np.ndarray) -> Logits:
        features = reference(images, training=False).numpy()
        return [features.mean(axis=(1, 2), dtype=np.float64) @ kernel + bias]

    def fill(network: TwoStageNetwork) -> None:
        assign_weights([(reference, [network.backbone])])
        logits = network.model.get_layer("logits")
        logits.kernel.assign(kernel)
        logits.bias.assign(bias)
        finalize(network.model.layers)

    check_parity(bench.make_run(spec=spec), fill, logits_of, images, bench, rounding)


@pytest.mark.parametrize("name", ROWS)
def test_every_network_of_the_table_computes_the_same_everywhere(bench: Bench, name: str) -> None:
    spec = spec_of(name)
    reference = import_dotted(spec.class_)(weights=None, include_top=False, input_shape=spec.target_size)
    bench.randomize(reference, images_of(spec))
    check_row(bench, spec, reference, KERNEL_ROUNDING_OF.get(name, KERNEL_ROUNDING))


# Models as users write them. Each body gives a feature map or a vector, each head takes it.

SIZE = (32, 32, 3)
layers = keras.layers


def convolutions(images: keras.KerasTensor) -> keras.KerasTensor:
    features = layers.Conv2D(8, 3, strides=2, name="first")(images)
    features = layers.BatchNormalization(name="norm")(features)
    features = layers.Dropout(0.3)(layers.Activation("relu")(features))
    return layers.Conv2D(8, 3, activation="relu", name="second")(features)


def small_base() -> keras.Model:
    images = keras.Input(SIZE)
    return keras.Model(images, convolutions(images), name="base")


def nested(images: keras.KerasTensor) -> keras.KerasTensor:
    """Keras' transfer-learning guide."""
    base = small_base()
    base.trainable = False
    return layers.GlobalAveragePooling2D()(base(images, training=False))


def nested_sequential(images: keras.KerasTensor) -> keras.KerasTensor:
    inner = keras.Sequential([layers.Conv2D(8, 3, name="first"), layers.BatchNormalization()], name="inner")
    outer = [inner, layers.Conv2D(8, 3, name="first"), layers.GlobalMaxPooling2D()]
    return keras.Sequential(outer, name="outer")(images)


def normalized(images: keras.KerasTensor) -> keras.KerasTensor:
    images = layers.Rescaling(1 / 255.0)(images)
    return layers.GlobalAveragePooling2D()(convolutions(layers.Normalization()(images)))


def nested_normalized(images: keras.KerasTensor) -> keras.KerasTensor:
    """Legacy HDF5 does not store the statistics of a nested Normalization."""
    inputs = keras.Input(SIZE)
    return keras.Model(inputs, normalized(inputs), name="base")(images)


def preprocessed_by_operations(images: keras.KerasTensor) -> keras.KerasTensor:
    return layers.GlobalAveragePooling2D()(convolutions(keras.applications.mobilenet_v2.preprocess_input(images)))


def built_of_operations(images: keras.KerasTensor) -> keras.KerasTensor:
    features = convolutions(images / 255.0)
    features = keras.ops.relu(features * 2.0 - 0.5 + features)
    return keras.ops.concatenate([keras.ops.mean(features, axis=(1, 2)), keras.ops.max(features, axis=[1, 2])], axis=-1)


def nested_efficientnet(images: keras.KerasTensor) -> keras.KerasTensor:
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=SIZE)
    return layers.GlobalAveragePooling2D()(base(images))


def nested_mobilenet_v3(images: keras.KerasTensor) -> keras.KerasTensor:
    base = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=SIZE, pooling="avg")
    return base(images)


BODIES: dict[str, Callable[[Any], Any]] = {
    "functional": lambda images: layers.GlobalAveragePooling2D()(convolutions(images)),
    "nested": nested,
    "nested_sequential": nested_sequential,
    "normalized": normalized,
    "nested_normalized": nested_normalized,
    "preprocess_input": preprocessed_by_operations,
    "operations": built_of_operations,
    "nested_efficientnet": nested_efficientnet,
    "nested_mobilenet_v3": nested_mobilenet_v3,
}
HEADS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "dense_softmax": ("softmax", lambda x: layers.Dense(3, activation="softmax")(x)),
    "dense_sigmoid": ("sigmoid", lambda x: layers.Dense(3, activation="sigmoid")(x)),
    "activation": ("softmax", lambda x: layers.Activation("softmax")(layers.Dense(3)(x))),
    "activation_in_float32": (
        "softmax",
        lambda x: layers.Activation("linear", dtype="float32")(layers.Dense(3, activation="softmax")(x)),
    ),
    "softmax_layer": ("softmax", lambda x: layers.Softmax()(layers.Dense(3)(x))),
    "softmax_operation": ("softmax", lambda x: keras.ops.softmax(layers.Dense(3)(x))),
    "sigmoid_operation": ("sigmoid", lambda x: keras.ops.sigmoid(layers.Dense(3)(x))),
    "nested_head": (
        "softmax",
        lambda x: keras.Sequential(
            [layers.Dense(5, activation="relu"), layers.Dropout(0.5), layers.Dense(3, activation="softmax")]
        )(x),
    ),
    "logits": ("none", lambda x: layers.Dense(3)(x)),
    "sum_of_logits": ("none", lambda x: layers.Add()([layers.Dense(3)(x), layers.Dense(3)(x)])),
}
SLOW_BODIES = {name: [pytest.mark.slow] for name in ("nested_efficientnet", "nested_mobilenet_v3")}
OWN = [pytest.param(body, "dense_softmax", marks=SLOW_BODIES.get(body, [])) for body in BODIES] + [
    ("functional", head) for head in HEADS if head != "dense_softmax"
]


def own_model(body: str, head: str) -> keras.Model:
    images = keras.Input(SIZE)
    return keras.Model(images, HEADS[head][1](BODIES[body](images)), name="own")


def randomize_own(bench: Bench, model: keras.Model, images: np.ndarray) -> None:
    """As `randomize`, with probabilities from which logits can be recovered accurately."""
    bench.randomize(model, images)
    last = [each for each in model._flatten_layers() if isinstance(each, layers.Dense) and each.units == 3]
    while any(np.abs(output).max() > 20 or 0 <= output.min() < 1e-3 for output in as_list(model(images))):
        for layer in last:
            layer.kernel.assign(layer.kernel * 0.5)


def check_own(bench: Bench, model: keras.Model, kinds: list[str], task: Any) -> None:
    spec = ModelSpec(target_size=SIZE)
    images = images_of(spec)[:NUM_COMPARED]
    randomize_own(bench, model, images_of(spec))
    before = [np.array(variable) for variable in model.weights]

    def logits_of(images: np.ndarray) -> Logits:
        return [to_logits([output], kind)[0] for output, kind in zip(as_list(model(images)), kinds, strict=True)]

    run = bench.make_run(spec=spec, network=OwnModel(model), task=task)
    check_parity(run, lambda network: None, logits_of, images, bench)
    for variable, value in zip(model.weights, before, strict=True):  # the user's model is copied, not changed
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(("body", "head"), OWN, ids=lambda name: name)
def test_every_own_model_computes_the_same_everywhere(bench: Bench, body: str, head: str) -> None:
    kind = HEADS[head][0]
    task = MultiLabel() if kind == "sigmoid" else Classification()
    check_own(bench, own_model(body, head), [kind], task)


def test_a_sequential_own_model_computes_the_same_everywhere(bench: Bench) -> None:
    model = keras.Sequential(
        [keras.Input(SIZE), small_base(), layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    )
    check_own(bench, model, ["softmax"], Classification())


def test_an_own_model_with_two_outputs_computes_the_same_everywhere(bench: Bench) -> None:
    images = keras.Input(SIZE)
    features = nested(images)
    kind = layers.Dense(3, activation="softmax", name="kind")(features)
    again = layers.Dense(3, name="again")(layers.Dense(4, activation="relu")(features))
    model = keras.Model(images, [again, kind])
    task = Classification(outputs=(Output("kind"), Output("again", weight=0.3)))
    run = bench.make_run(spec=ModelSpec(target_size=SIZE), network=OwnModel(model), task=task)
    shown = images_of(run.spec)[:NUM_COMPARED]
    randomize_own(bench, model, images_of(run.spec))

    def logits_of(images: np.ndarray) -> Logits:
        again_logits, kind_probabilities = as_list(model(images))
        return [np.log(kind_probabilities), again_logits]

    check_parity(run, lambda network: None, logits_of, shown, bench)
    assert prepare(run).plain.network.model.output_names == ["kind", "again"]
