"""The callbacks that Keras ships, in a run and in `fit` on the same batches from the same weights."""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Constant, Cosine, Live, Run
from model_trainer.errors import ConfigError
from model_trainer.training import keras_callbacks
from model_trainer.training.prepare import prepare
from model_trainer.training.train import Result, train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs")

MakeRun = Callable[..., Run]

eagerly = pytest.mark.usefixtures("eager_steps")  # compilation does not change which hook is called when

MetricsLog = dict[str, Any] | None


HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None

# Of 3 whole batches each, validated in 2.
FOUR_EPOCHS = {"network__dropout_rate": 0.0, "training__epochs": 4, "training__batch_size": 5}


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    return make_run(**FOUR_EPOCHS)


def fit(run: Run, *callbacks: keras.callbacks.Callback, optimizer: Any = None) -> keras.Model:
    """The model that Keras' own loop trains with the settings of `run`, except for its callbacks."""
    prepared = prepare(run)
    model = prepared.plain.network.model
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    epochs = run.training.epochs
    batches, val_batches = (
        dataset.map(lambda batch: (run.spec.preprocess(batch.inputs), batch.targets))
        for dataset in (prepared.train_pipeline.training(epochs), prepared.val_pipeline.validation())
    )
    options = {"steps_per_epoch": 3, "validation_steps": 2, "shuffle": False, "verbose": 0}
    model.fit(batches, epochs=epochs, validation_data=val_batches, callbacks=list(callbacks), **options)
    return model


def train(run: Run, *callbacks: keras.callbacks.Callback) -> Result:
    return train_model(run.changed("callbacks", callbacks))


class Recorder(keras.callbacks.Callback):
    """Records each call of a hook, with the number of its batch or epoch and its logs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, float]]] = []

    def _note(self, name: str, logs: MetricsLog) -> None:
        metrics = {key: float(value) for key, value in (logs or {}).items() if key != "learning_rate"}
        self.calls.append((name, metrics))


def _recording(hook: str) -> Callable[..., None]:
    if hook.endswith(("train_begin", "train_end", "test_begin", "test_end")):
        return lambda self, logs=None: self._note(hook, logs)
    return lambda self, number, logs=None: self._note(f"{hook} {number}", logs)


HOOKS = [
    f"on_{phase}_{end}" for phase in ("train", "epoch", "train_batch", "test", "test_batch") for end in ("begin", "end")
]
for name in HOOKS:
    setattr(Recorder, name, _recording(name))


def check_calls(ours: Recorder, theirs: Recorder) -> None:
    assert [name for name, _ in ours.calls] == [name for name, _ in theirs.calls]
    for (name, mine), (_, other) in zip(ours.calls, theirs.calls, strict=True):
        assert mine == pytest.approx(other, abs=1e-4), name


class Watchers:
    """Callbacks that change nothing, and the files that they write to a folder."""

    def __init__(self, folder: Path) -> None:
        self.recorder, self.history = Recorder(), keras.callbacks.History()
        self.csv, self.models, self.tensorboard = folder / "log.csv", folder / "models", folder / "tensorboard"
        self.best = keras.callbacks.ModelCheckpoint(
            str(self.models / "{epoch}.keras"), monitor="val_accuracy", save_best_only=True
        )

    def callbacks(self) -> tuple[keras.callbacks.Callback, ...]:
        watching = [self.recorder, self.history, keras.callbacks.CSVLogger(str(self.csv)), self.best]
        if HAS_TENSORBOARD:
            watching.append(keras.callbacks.TensorBoard(str(self.tensorboard), histogram_freq=1, update_freq=2))
        return tuple(watching)


@pytest.fixture(scope="module")
def watched_once(
    short_pipeline: None, plain_graphs: None, declare_run: MakeRun, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], tuple[Watchers, Watchers]]:
    """What callbacks that change nothing saw of our run and of `fit`, all in the same two trainings."""

    @functools.cache
    def watch() -> tuple[Watchers, Watchers]:
        run = declare_run(**FOUR_EPOCHS, output_dir=str(tmp_path_factory.mktemp("output")))
        ours, theirs = (Watchers(tmp_path_factory.mktemp(name)) for name in ("ours", "theirs"))
        train(run, *ours.callbacks())
        _with_direction(theirs.best)
        fit(run, *theirs.callbacks())
        return ours, theirs

    return watch


@pytest.fixture
def watched(eager_steps: None, watched_once: Callable[[], tuple[Watchers, Watchers]]) -> tuple[Watchers, Watchers]:
    return watched_once()


def test_all_hooks_are_called_in_the_order_of_fit_with_its_logs(watched: tuple[Watchers, Watchers]) -> None:
    ours, theirs = (each.recorder for each in watched)
    assert len(ours.calls) == 2 + 4 * (2 + 3 * 2 + 2 + 2 * 2)
    check_calls(ours, theirs)


@eagerly
def test_hooks_of_a_lambda_callback_are_called(run: Run) -> None:
    calls: list[str] = []
    names = ("on_train_batch_begin", "on_train_batch_end", "on_epoch_end")
    hooks = {name: lambda number, logs, name=name: calls.append(f"{name} {number}") for name in names}
    train(run.changed("training.epochs", 1), keras.callbacks.LambdaCallback(**hooks))
    assert calls == [f"on_train_batch_{end} {step}" for step in range(3) for end in ("begin", "end")] + [
        "on_epoch_end 0"
    ]


@eagerly
@pytest.mark.parametrize(
    "monitor",
    [
        "val_accuracy",
        pytest.param("val_loss", marks=pytest.mark.slow),
        pytest.param("accuracy", marks=pytest.mark.slow),
    ],
)
def test_early_stopping_stops_after_the_same_epoch_as_in_fit(run: Run, monitor: str) -> None:
    def stopping() -> keras.callbacks.Callback:
        return keras.callbacks.EarlyStopping(monitor=monitor, min_delta=2.0, patience=2, restore_best_weights=True)

    ours, theirs = Recorder(), Recorder()
    train(run, stopping(), ours)
    fit(run, _with_direction(stopping()), theirs)
    check_calls(ours, theirs)
    assert ours.calls[-2][0] == "on_epoch_end 2"


def _with_direction(callback: Any) -> Any:
    callback.mode = "min" if callback.monitor.endswith("loss") else "max"  # `fit` would ask its own metrics
    return callback


@eagerly
def test_reduce_lr_on_plateau_lowers_the_rate_as_in_fit(run: Run) -> None:
    def plateau() -> keras.callbacks.Callback:
        return keras.callbacks.ReduceLROnPlateau(monitor="val_accuracy", min_delta=2.0, patience=1, factor=0.5)

    history = keras.callbacks.History()
    result = train(run, plateau())
    fit(run, _with_direction(plateau()), history)
    rates = [row["learning_rate"] for row in result.history]
    assert rates == pytest.approx([0.05, 0.05, 0.025, 0.0125])  # as each epoch ended, as in `fit`
    assert rates == pytest.approx(history.history["learning_rate"])


def test_model_checkpoint_saves_the_same_best_model_as_in_fit(watched: tuple[Watchers, Watchers]) -> None:
    ours, theirs = ({path.name for path in each.models.iterdir()} for each in watched)
    assert ours == theirs
    name = sorted(ours)[-1]
    models = [keras.models.load_model(each.models / name) for each in watched]
    for mine, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


@eagerly
def test_a_learning_rate_scheduler_sets_the_rate(run: Run) -> None:
    result = train(run, keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5))
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.025, 0.0125, 0.00625, 0.003125])


def test_history_and_csv_logger_have_the_same_values_as_in_fit(watched: tuple[Watchers, Watchers]) -> None:
    ours, theirs = (each.history.history for each in watched)
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, abs=1e-4)
    texts = [each.csv.read_text().splitlines() for each in watched]
    tables = [list(csv.DictReader(text)) for text in texts]
    for mine, other in zip(*tables, strict=True):
        assert {name: float(mine[name]) for name in other} == pytest.approx(
            {name: float(value) for name, value in other.items()}, abs=1e-4
        )


class Poison(keras.callbacks.Callback):
    """Makes the weights infinite before the second step of the second epoch."""

    epoch = 0

    def on_epoch_begin(self, epoch: int, logs: MetricsLog = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: MetricsLog = None) -> None:
        if (self.epoch, batch) == (1, 1):
            self.model.set_weights([np.full_like(weight, np.inf) for weight in self.model.get_weights()])


@eagerly
def test_terminate_on_nan_stops_in_the_same_step_as_in_fit(run: Run) -> None:
    ours, theirs = Recorder(), Recorder()
    result = train(run, Poison(), keras.callbacks.TerminateOnNaN(), ours)
    fit(run, Poison(), keras.callbacks.TerminateOnNaN(), theirs)
    names = [name for name, _ in ours.calls]
    assert names == [name for name, _ in theirs.calls]
    assert names.count("on_train_batch_end 1") == 2
    assert "on_train_batch_end 2" not in names[names.index("on_epoch_begin 1") :]
    assert len(result.history) == 2


class Looker(keras.callbacks.Callback):
    """Calls the model at the end of steps and epochs, with `training=True` and without, and predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.probabilities: list[np.ndarray] = []

    def _look(self) -> None:
        images = np.zeros((2, 16, 16, 3), np.float32)
        self.model(images, training=True)
        called, predicted = np.asarray(self.model(images)), self.model.predict(images, verbose=0)
        np.testing.assert_allclose(called, predicted, atol=1e-5)
        self.probabilities.append(called)

    def on_train_batch_end(self, batch: int, logs: MetricsLog = None) -> None:
        self._look()

    def on_epoch_end(self, epoch: int, logs: MetricsLog = None) -> None:
        self._look()


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_callback_may_call_the_model(make_run: MakeRun, devices: int) -> None:
    looker = Looker()
    changes = {"network__dropout_rate": 0.3, "spec__kwargs": {"batch_normalization": True}}
    changes |= {"val_data": None, "training__batch_size": 5}
    whole = train_model(make_run(callbacks=(looker,), hardware__devices=devices, **changes))
    assert len(looker.probabilities) == 4
    assert all(each.sum(axis=1) == pytest.approx(1.0) for each in looker.probabilities)
    alone = train_model(make_run(hardware__devices=devices, **changes))
    assert whole.history[-1]["loss"] == alone.history[-1]["loss"]


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address of this machine, and what is posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


@eagerly
def test_a_remote_monitor_posts_each_epoch(run: Run, listener: tuple[str, list[dict[str, Any]]]) -> None:
    root, posted = listener
    result = train(run.changed("training.epochs", 2), keras.callbacks.RemoteMonitor(root=root, send_as_json=True))
    assert [row["epoch"] for row in posted] == [0, 1]
    assert [row["val_loss"] for row in posted] == [row["val_loss"] for row in result.history]


@eagerly
def test_a_progbar_logger_is_accepted(run: Run) -> None:
    assert len(train(run.changed("training.epochs", 1), keras.callbacks.ProgbarLogger()).history) == 1


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="tensorboard is not installed")
def test_tensorboard_writes_the_same_values_as_in_fit(watched: tuple[Watchers, Watchers]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values = []
    for each in watched:
        events = EventAccumulator(str(each.tensorboard / "validation")).Reload()
        values.append([float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_accuracy")])
        tags = EventAccumulator(str(each.tensorboard / "train")).Reload().Tags()["tensors"]
        assert any("histogram" in tag for tag in tags)
    assert values[0] == pytest.approx(values[1], abs=1e-4)


@eagerly
def test_swap_ema_weights_validates_and_saves_the_averages_of_fit(run: Run) -> None:
    def optimizer() -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.9)

    ours, theirs = Recorder(), Recorder()
    run = run.changed("training.epochs", 2)
    declared = run.changed("training.optimizer", Live(value=optimizer()))
    result = train(declared, keras.callbacks.SwapEMAWeights(), ours)
    model = fit(run, keras.callbacks.SwapEMAWeights(), theirs, optimizer=optimizer())
    check_calls(ours, theirs)
    saved = keras.models.load_model(result.path / "final_model.hdf5")
    for mine, other in zip(saved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


@eagerly
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: keras.callbacks.BackupAndRestore(folder), "--resume continues exactly from the newest one"),
        (lambda folder: AnOrbaxCheckpoint(), "only Model Trainer can load"),
        (lambda folder: keras.callbacks.SwapEMAWeights(), "--set training.ema_decay=0.999"),
        (
            lambda folder: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
            "sets the learning rate, and so does training.schedule, Cosine",
        ),
        (lambda folder: keras.callbacks.ReduceLROnPlateau(), "--set training.schedule=Constant"),
    ],
    ids=["backup", "orbax", "averages", "scheduler", "plateau"],
)
def test_a_callback_that_cannot_work_is_refused_with_the_reason(
    run: Run, tmp_path: Path, make: Callable[[str], keras.callbacks.Callback], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"`callbacks.0` .*" + re.escape(message)):
        train(run.changed("training.schedule", Cosine()), make(str(tmp_path)))
    assert not Path(run.output_dir).exists()


@eagerly
def test_tensorboard_without_its_package_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_callbacks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        train(run, keras.callbacks.TensorBoard(str(tmp_path)))


class Rewinds(keras.callbacks.Callback):
    """Saves the weights of the first epoch, and loads them after the last one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.kept = path, []

    def on_epoch_end(self, epoch: int, logs: MetricsLog = None) -> None:
        if epoch == 0:
            self.kept = self.model.get_weights()
            self.model.save_weights(self.path)
        if epoch == 3:
            self.model.load_weights(self.path)


@eagerly
def test_a_callback_loads_the_weights_that_it_saved(run: Run, tmp_path: Path) -> None:
    rewinds = Rewinds(tmp_path / "first.weights.h5")
    result = train(run.changed("spec.kwargs", {"batch_normalization": True}), rewinds)
    saved = keras.models.load_model(result.path / "final_model.hdf5")
    for mine, kept in zip(saved.get_weights(), rewinds.kept, strict=True):
        np.testing.assert_array_equal(mine, kept)


class AnOrbaxCheckpoint(keras.callbacks.OrbaxCheckpoint):
    """Without the package that it needs."""

    def __init__(self) -> None:
        pass


class SetsTheRate(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: MetricsLog = None) -> None:
        self.model.optimizer.learning_rate = 0.001


@eagerly
def test_a_learning_rate_that_has_no_effect_is_warned_about_once(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run = run.changed("training.epochs", 2)
    train(run.changed("training.schedule", Cosine()), SetsTheRate())
    assert capfd.readouterr().err.count("A callback set the learning rate to 0.001, but training.schedule, Cosine") == 1
    result = train(run.changed("training.schedule", Constant()), SetsTheRate())
    assert "A callback set the learning rate" not in capfd.readouterr().err
    assert result.history[-1]["learning_rate"] == pytest.approx(0.001)


@eagerly
def test_model_checkpoint_continues_in_the_middle_of_an_epoch(run: Run, tmp_path: Path) -> None:
    def callbacks() -> tuple[keras.callbacks.Callback, ...]:
        saving = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=2)
        return saving, Starts(), StopAfter(4)

    train(run, *callbacks())  # one step into the second epoch
    resumed = callbacks()
    result = train_model(run.changed("callbacks", resumed), resume=True)
    assert len(result.history) == 4
    names = {path.name for path in tmp_path.glob("*.keras")}
    assert names == {"1-2.keras", "2-1.keras", "2-3.keras", "3-2.keras", "4-1.keras", "4-3.keras"}
    assert resumed[1].epochs == [1, 2, 3]  # it has no state, so it begins with the running epoch


class Starts(keras.callbacks.Callback):
    """Notes which epochs begin."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: MetricsLog = None) -> None:
        self.epochs.append(epoch)


class StopAfter(keras.callbacks.Callback):
    """Asks the process to stop after so many steps; only once in a run."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch: int, logs: MetricsLog = None) -> None:
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), signal.SIGUSR1)

    def get_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


class EndsAndStops(StopAfter):
    """Ends the run within an epoch, and in the same step the process is asked to stop."""

    def on_train_batch_end(self, batch: int, logs: MetricsLog = None) -> None:
        super().on_train_batch_end(batch)
        if self.steps == 0:
            self.model.stop_training = True


@eagerly
def test_an_epoch_that_a_callback_ended_is_finished_when_the_run_resumes(run: Run) -> None:
    first = train(run, EndsAndStops(4))
    assert len(first.history) == 1
    result = train_model(run.changed("callbacks", (EndsAndStops(4),)), resume=True)
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert (result.path / "final_model.hdf5").is_file()
    whole = train(run.changed("name", "whole"), EndsInStep(4))
    assert [row["val_loss"] for row in result.history] == pytest.approx([row["val_loss"] for row in whole.history])


class EndsInStep(keras.callbacks.Callback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch: int, logs: MetricsLog = None) -> None:
        self.steps -= 1
        self.model.stop_training = self.steps == 0


@eagerly
def test_counters_of_keras_callbacks_continue_in_a_resumed_run(run: Run) -> None:
    stopping = keras.callbacks.EarlyStopping(monitor="val_accuracy", min_delta=2.0, patience=3)
    short = run.changed("training.epochs", 2)
    train(short, stopping)
    again = keras.callbacks.EarlyStopping(monitor="val_accuracy", min_delta=2.0, patience=3)
    result = train_model(run.changed("callbacks", (again,)).changed("training.epochs", 9), resume=True)
    assert len(result.history) == 4  # one epoch, and three that were no better
