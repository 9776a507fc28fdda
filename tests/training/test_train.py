"""A whole run, from folder to files."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer import (
    Accuracy,
    Call,
    Classification,
    EarlyStopping,
    ImageFolder,
    MacroRecall,
    Manifest,
    ModelSpec,
    Network,
    Output,
    OwnModel,
    Run,
    Unfreeze,
    load_image,
    load_model,
)
from model_trainer.errors import ConfigError, DataError, DeviceError
from model_trainer.pipeline import dataset
from model_trainer.pipeline.fallback import map_with_fallback
from model_trainer.training import run_folder
from model_trainer.training.history import draw_curves
from model_trainer.training.prepare import prepare
from model_trainer.training.train import Result, train_model

# Except in `trained` and in the tests of unreadable images.
pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")
compiled = pytest.mark.usefixtures("compiled_steps")

MakeRun = Callable[..., Run]

FILES = {
    "final_model.hdf5", "model_max_acc.hdf5", "model_min_loss.hdf5", "model_spec.json", "training_options.json",
    "history.csv", "curves.png", "logs", "checkpoints",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(plain_graphs: None, tmp_path_factory: pytest.TempPathFactory, colors: Path) -> Result:
    spec = {
        "class": "model_trainer.testing.small_backbone",
        "preprocess_func": "between_plus_minus_1",
        "target_size": [16, 16, 3],
    }
    from model_trainer import SGD, Constant, Training

    run = Run(
        name="whole",
        spec=ModelSpec(**spec),
        weights=None,
        train_data=ImageFolder(colors / "train"),
        val_data=ImageFolder(colors / "val"),
        task=Classification(metrics=(Accuracy(), MacroRecall())),
        training=Training(epochs=6, batch_size=4, learning_rate=0.05, optimizer=SGD(momentum=0.9), schedule=Constant()),
        output_dir=str(tmp_path_factory.mktemp("output")),
    )
    whole_pipeline = mock.patch.object(dataset, "map_with_fallback", map_with_fallback)
    with whole_pipeline, mock.patch.object(run_folder, "draw_curves", draw_curves):
        return train_model(run)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_the_documented_files(trained: Result) -> None:
    names = {path.name for path in trained.path.iterdir()}
    assert names == FILES | {"model_max_sensitivity.hdf5"}
    logs = {path.name for path in (trained.path / "logs").iterdir()}
    assert {"train.log", "metrics.jsonl"} < logs
    assert any(name.startswith("events.out.tfevents") for name in logs)
    assert re.fullmatch(r"whole-\d{8}-\d{6}", trained.path.name)


def test_it_learns_colors(trained: Result) -> None:
    assert trained.history[-1]["val_accuracy"] == 1.0
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


def test_a_result_names_the_epoch_of_each_best_model(trained: Result) -> None:
    losses = [row["val_loss"] for row in trained.history]
    assert trained.best_epochs["model_min_loss"] == 1 + losses.index(min(losses))
    assert set(trained.best_epochs) == {"model_max_acc", "model_max_sensitivity", "model_min_loss"}


def test_history_has_one_row_for_each_epoch(trained: Result) -> None:
    table = rows(trained.path)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    assert list(table[0]) == [
        "epoch", "loss", "accuracy", "sensitivity", "val_loss", "val_accuracy", "val_sensitivity",
        "learning_rate", "seconds",
    ]  # fmt: skip


def test_tensorboard_events_have_each_epoch(trained: Result) -> None:
    file = next((trained.path / "logs").glob("events.out.tfevents*"))
    tags = [
        value.tag
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        for value in tf.compat.v1.Event.FromString(record).summary.value
    ]
    assert tags.count("epoch/val_loss") == 6


def test_curves_png_is_an_image(trained: Result) -> None:
    from PIL import Image

    with Image.open(trained.path / "curves.png") as image:
        image.load()
        assert image.width > 500


def test_the_log_file_has_the_printed_messages(trained: Result) -> None:
    text = (trained.path / "logs" / "train.log").read_text()
    assert "Data: 15 images of 3 classes to train, 9 to validate." in text
    assert "epoch 6/6" in text


def test_plain_keras_loads_each_file_and_predicts_the_same(trained: Result, colors: Path) -> None:
    # model_files/test_parity.py tests this in a process without Model Trainer.
    files = sorted(trained.path.glob("*.hdf5"))
    assert len(files) == 4
    spec = load_model(files[0]).spec
    images = np.stack([load_image(path, spec) for path in sorted((colors / "val").rglob("*.png"))])
    for file in files:
        model = keras.models.load_model(file)
        assert model.dtype_policy.name == "float32"
        assert not [layer for layer in model.layers if not type(layer).__module__.startswith("keras.")]
        answers = model.predict(images, verbose=0)
        assert answers.shape == (9, 3)
        np.testing.assert_allclose(answers, load_model(file).model(images), atol=1e-5)


@pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode != 0,
    reason="torch is not installed",
)
def test_the_torch_backend_loads_the_file_and_predicts_the_same(trained: Result, tmp_path: Path) -> None:
    path = trained.path / "final_model.hdf5"
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    program = (
        "import numpy as np, keras\n"
        f"model = keras.models.load_model({str(path)!r})\n"
        f"answers = model.predict(np.load({str(tmp_path / 'images.npy')!r}), verbose=0)\n"
        f"np.save({str(tmp_path / 'answers.npy')!r}, answers)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), load_model(path).model(images), atol=1e-5)


def test_a_model_file_contains_model_spec_json(trained: Result) -> None:
    with h5py.File(trained.path / "final_model.hdf5") as file:
        inside = json.loads(file.attrs["model_spec"])
    assert inside == json.loads((trained.path / "model_spec.json").read_text())
    assert inside["class"] == "model_trainer.testing.small_backbone"
    assert inside["classes"] == ["blue", "green", "red"]


@compiled
def test_training_options_json_reproduces_the_run(trained: Result, tmp_path: Path) -> None:
    options = json.loads((trained.path / "training_options.json").read_text())
    assert options["weights_used"] == "random"
    assert set(options["versions"]) == {"model_trainer", "python", "tensorflow", "keras"}
    again = Run.load(trained.path / "training_options.json").changed("output_dir", str(tmp_path))
    result = train_model(again)
    assert [row["loss"] for row in result.history] == pytest.approx([row["loss"] for row in trained.history], abs=1e-5)


def test_deterministic_enables_op_determinism_of_tensorflow(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []  # replaced, because TensorFlow cannot disable determinism again
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append(True))
    train_model(make_run(val_data=None))
    assert not asked
    train_model(make_run(val_data=None, training__deterministic=True))
    assert asked


def test_an_out_of_memory_error_names_the_option_to_lower(make_run: MakeRun) -> None:
    class RunsOut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(DeviceError, match=r"Out of memory with 4 images of 16 x 16.*training.batch_size=2"):
        train_model(make_run(callbacks=(RunsOut(),)))


@compiled
def test_outputs_with_their_own_losses_and_weights_train(make_run: MakeRun) -> None:
    outputs = (Output("main"), Output("side", loss=Call("keras.losses.Huber"), weight=0.5))
    result = train_model(make_run(task=Classification(outputs=outputs), training__epochs=6))
    model = load_model(result.path / "final_model.hdf5")
    assert model.model.output_names == ["main", "side"]
    assert result.history[-1]["val_accuracy"] == 1.0


def test_another_seed_gives_other_weights(make_run: MakeRun) -> None:
    started = [prepare(make_run(training__seed=seed)).plain.network.model for seed in (0, 0, 1)]
    first, again, other = (model.get_layer("conv1").kernel.numpy() for model in started)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@compiled
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_file_is_float32_after_training_in_mixed_precision(make_run: MakeRun, precision: str) -> None:
    result = train_model(make_run(training__precision=precision))
    model = keras.models.load_model(result.path / "final_model.hdf5")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert np.isfinite(result.history[-1]["loss"])


@compiled
def test_keras_fit_gives_the_same_losses(make_run: MakeRun, colors: Path) -> None:
    """The loop against Keras' own, on the same batches, from the same weights."""
    run = make_run(network__dropout_rate=0.0, training__epochs=3, training__batch_size=5)
    prepared = prepare(run)
    model = prepared.plain.network.model
    start = [weight.numpy() for weight in model.weights]
    ours = [row["loss"] for row in train_model(run).history]
    for weight, value in zip(model.weights, start, strict=True):
        weight.assign(value)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy())
    batches = prepared.train_pipeline.training(3).map(lambda batch: (run.spec.preprocess(batch.inputs), batch.targets))
    theirs = model.fit(batches, epochs=3, steps_per_epoch=3, shuffle=False, verbose=0).history["loss"]
    assert ours == pytest.approx(theirs, abs=1e-5)


@compiled
def test_unfreezing_lets_the_backbone_train_with_another_rate(make_run: MakeRun) -> None:
    run = make_run(
        network=Network(freeze="backbone", unfreeze=Unfreeze(after_epochs=1, learning_rate=0.01)),
        training__epochs=2,
        val_data=None,
    )
    frozen = train_model(run.changed("training.epochs", 1))
    unfrozen = train_model(run)
    kernels = [
        load_model(result.path / "final_model.hdf5").model.get_layer("conv1").kernel.numpy()
        for result in (frozen, unfrozen)
    ]
    start = prepare(run).plain.network.model.get_layer("conv1").kernel.numpy()
    np.testing.assert_array_equal(kernels[0], start)
    assert not np.array_equal(kernels[1], start)
    assert [row["learning_rate"] for row in unfrozen.history] == pytest.approx([0.05, 0.01])


def test_a_penalty_adds_to_the_loss(make_run: MakeRun) -> None:
    plain = train_model(make_run(training__epochs=1, training__learning_rate=1e-9))
    penalized = train_model(
        make_run(
            training__epochs=1,
            training__learning_rate=1e-9,
            network__regularize=[{"type": "L2", "strength": 0.1, "layers": ["*"]}],
        )
    )
    kernels = [w.numpy() for w in load_model(plain.path).model.weights if w.name == "kernel"]
    expected = 0.1 * sum((kernel**2).sum() for kernel in kernels)
    assert penalized.history[0]["loss"] - plain.history[0]["loss"] == pytest.approx(expected, rel=1e-3)
    assert penalized.history[0]["val_loss"] - plain.history[0]["val_loss"] == pytest.approx(expected, rel=1e-3)


def test_early_stopping_ends_the_run(make_run: MakeRun) -> None:
    stopping = EarlyStopping(monitor="val_accuracy", patience=1, min_delta=2.0)  # nothing improves by 2
    result = train_model(make_run(callbacks=(stopping,), training__epochs=50))
    assert len(result.history) == 2


def test_a_monitor_that_the_run_does_not_have_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match=r"`callbacks.0.monitor` is 'val_acc', but this run has only loss, accuracy"):
        train_model(make_run(callbacks=(EarlyStopping(monitor="val_acc"),)))


class Recorder(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.batch_logs: list[dict[str, float]] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.calls.append("train_begin")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.batch_logs.append(dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.calls.append(f"epoch_end {epoch} {sorted(logs or {})}")


def test_a_keras_callback_sees_epochs_and_batches(make_run: MakeRun) -> None:
    recorder = Recorder()
    train_model(make_run(callbacks=(recorder,), training__epochs=2))
    names = "['accuracy', 'learning_rate', 'loss', 'val_accuracy', 'val_loss']"
    assert recorder.calls == ["train_begin", f"epoch_end 0 {names}", f"epoch_end 1 {names}"]
    assert len(recorder.batch_logs) == 8
    assert set(recorder.batch_logs[0]) == {"loss", "accuracy"}


def test_callbacks_of_keras_work(make_run: MakeRun, tmp_path: Path) -> None:
    callbacks = (
        Call("keras.callbacks.CSVLogger", filename=str(tmp_path / "log.csv")),
        Call("keras.callbacks.ModelCheckpoint", filepath=str(tmp_path / "best.keras"), save_best_only=True),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        keras.callbacks.TerminateOnNaN(),
    )
    result = train_model(make_run(callbacks=callbacks, training__epochs=2))
    assert (tmp_path / "best.keras").is_file()
    assert (tmp_path / "log.csv").read_text().count("\n") == 3
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.025, 0.0125])


def test_both_halves_of_a_split_read_the_files_once(
    make_run: MakeRun, colors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], ImageFolder.read
    monkeypatch.setattr(ImageFolder, "read", lambda source: reads.append(source) or read(source))
    train, val = ImageFolder(colors / "train").split(0.3)
    prepare(make_run(train_data=train, val_data=val))
    assert len(reads) == 1


@compiled
def test_the_model_is_traced_once_for_all_batch_sizes(trained: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = load_model(trained.path), []
    call = model.model.call
    monkeypatch.setattr(model.model, "call", lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs))
    for count in (1, 2, 3):
        assert model.probabilities(np.zeros((count, 16, 16, 3), np.uint8)).shape == (count, 3)
    assert len(calls) == 1


def test_without_validation_the_training_metrics_select_the_best_model(make_run: MakeRun) -> None:
    result = train_model(make_run(val_data=None))
    assert {path.name for path in result.path.iterdir()} == FILES - {"curves.png"}  # tests draw none
    assert list(result.history[0]) == ["epoch", "loss", "accuracy", "learning_rate", "seconds"]


@compiled
def test_an_own_model_trains_and_its_file_needs_trust(make_run: MakeRun) -> None:
    images = keras.Input((16, 16, 3))
    hidden = keras.layers.Flatten()(images)
    main = keras.layers.Dense(3, activation="softmax", name="main")(hidden)
    side = keras.layers.Dense(3, activation="softmax", name="side")(hidden)
    run = make_run(
        network=OwnModel(keras.Model(images, [main, side])),
        task=Classification(outputs=(Output("main"), Output("side", weight=0.5))),
    )
    result = train_model(run)
    with pytest.raises(ConfigError, match="was a live Python object"):
        Run.load(result.path / "training_options.json")
    with pytest.raises(Exception, match="trust"):
        load_model(result.path)
    model = load_model(result.path, trust=True)
    assert model.probabilities(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("training__batch_size", 64, ConfigError, r"`training.batch_size` is 64, but .* has 15 images. Lower it"),
        ("hardware__devices", 3000, Exception, "CPU was split into 4 devices"),
        ("spec__class", "model_trainer.testing.nothing", ConfigError, "has no 'nothing'"),
        ("weights", "none.hdf5", Exception, "There is no model file none.hdf5"),
        ("training__optimizer", {"type": "fractions.Fraction"}, ConfigError, "should be a Keras optimizer"),
        ("callbacks", [{"type": "fractions.Fraction"}], ConfigError, "should be a keras.callbacks.Callback"),
        ("network__freeze", ["convolution1"], ConfigError, "names 'convolution1'"),
    ],
)
def test_an_invalid_run_is_refused_before_a_file_is_written(
    make_run: MakeRun, name: str, value: object, error: type[Exception], message: str
) -> None:
    run = make_run(**{name: value})
    with pytest.raises(error, match=message):
        train_model(run)
    assert not Path(run.output_dir).exists()


def test_validation_data_with_other_classes_is_refused(
    make_run: MakeRun, tmp_path: Path, draw_folder: Callable[..., Path]
) -> None:
    folder = draw_folder(tmp_path / "val", 1)
    (folder / "red").rename(folder / "rde")
    with pytest.raises(DataError, match="has the class 'rde', which is not one of blue, green, red"):
        train_model(make_run(val_data=ImageFolder(folder)))


@pytest.mark.usefixtures("whole_pipeline")
def test_unreadable_images_are_listed_and_skipped(
    make_run: MakeRun, tmp_path: Path, draw_folder: Callable[..., Path]
) -> None:
    folder = draw_folder(tmp_path / "train", 5)
    (folder / "red" / "broken.jpg").write_bytes(b"not an image")
    (folder / "red" / "empty.png").write_bytes(b"")
    result = train_model(make_run(train_data=ImageFolder(folder), training__batch_size=5))
    assert {Path(path).name for path in result.bad_images} == {"broken.jpg", "empty.png"}
    log = (result.path / "logs" / "train.log").read_text()
    assert log.count("red/broken.jpg is not an image; it is skipped.") == 1
    assert "2 images could not be read and were skipped" in log
    table = (result.path / "bad_images.csv").read_text().splitlines()
    assert table[0] == "image,reason"
    assert sorted(table[1:]) == [
        f"{folder}/red/broken.jpg,is not an image",
        f"{folder}/red/empty.png,is empty (0 bytes)",
    ]


def test_missing_images_are_reported_before_training(make_run: MakeRun, tmp_path: Path) -> None:
    rows = [f"{number}.jpg,{'cat' if number % 2 else 'dog'}" for number in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(["filename,label", *rows]))
    run = make_run(train_data=Manifest(tmp_path / "train.csv", root="elsewhere"), val_data=None)
    with pytest.raises(DataError, match=r"40 of 40 images do not exist; the first is elsewhere/0.jpg.*root="):
        train_model(run)


def test_it_learns_from_class_probabilities_and_crops_in_a_keras_trainer_json(
    make_run: MakeRun, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    records = []
    for number in range(24):
        name = ("blue", "red")[number % 2]
        # The color stands in the crop only; all around it is noise.
        pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
        pixels[10:30, 5:25] = (30, 40, 220) if name == "blue" else (220, 30, 40)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        certain = [0.9, 0.1] if name == "blue" else [0.1, 0.9]
        record = {"filename": f"{number}.png", "class_probabilities": certain, "class_name": name}
        records.append(record | {"crop": [5, 10, 20, 20]})
    (tmp_path / "train_data.json").write_text(json.dumps(records))
    source = Manifest(tmp_path / "train_data.json")
    run = make_run(train_data=source, val_data=source, training__epochs=4)
    last = train_model(run).history[-1]
    assert last["val_accuracy"] == 1.0
    # Cross-entropy is never below the entropy of its targets.
    assert 0.325 <= last["val_loss"] < 0.5


@pytest.mark.usefixtures("whole_pipeline")
def test_too_many_unreadable_images_stop_the_run(
    make_run: MakeRun, tmp_path: Path, draw_folder: Callable[..., Path]
) -> None:
    folder = draw_folder(tmp_path / "train", 5)
    for number in range(4):
        (folder / "red" / f"broken{number}.jpg").write_bytes(b"not an image")
    run = make_run(train_data=ImageFolder(folder), training__max_bad_images=3)
    with pytest.raises(DataError, match=r"4 of 28 images could not be read[\s\S]*broken\d.jpg is not an image"):
        train_model(run)


@pytest.mark.parametrize(("seconds", "drawn"), [(1.0, [1, 4]), (1000.0, [1, 2, 3, 4])])
def test_curves_are_drawn_at_the_end_and_as_often_as_a_small_fraction_of_the_time_allows(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, seconds: float, drawn: list[int]
) -> None:
    from model_trainer.training import loop

    now, num_rows_drawn = [0.0], []

    def draw(path: Path, rows: list[Any], title: str) -> None:
        now[0] += 1.0  # takes a second
        num_rows_drawn.append(len(rows))

    class Wait(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            now[0] += seconds

    monkeypatch.setattr(run_folder, "draw_curves", draw)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    train_model(make_run(training__epochs=4, callbacks=(Wait(),)))
    assert num_rows_drawn == drawn


def test_a_run_that_ends_with_an_error_draws_its_curves(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_rows_drawn: list[int] = []
    monkeypatch.setattr(run_folder, "draw_curves", lambda path, rows, title: num_rows_drawn.append(len(rows)))
    monkeypatch.setattr("model_trainer.training.loop.MAX_CURVES_FRACTION", 1e-9)

    class Fail(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3:
                raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train_model(make_run(training__epochs=4, callbacks=(Fail(),)))
    assert num_rows_drawn == [1, 3]
