"""Observers: what they compute in a step, when, and how the values come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, final

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import (
    Adam,
    ConfigError,
    DivergedError,
    Hardware,
    LayerNorms,
    Live,
    OwnModel,
    Run,
)
from model_trainer.pipeline.batch import Batch
from model_trainer.run.observers import ObservedStep, Observer, layer_groups
from model_trainer.training.gradients import Clip
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.observers import LAG, Observers
from model_trainer.training.prepare import prepare
from model_trainer.training.step import _dense, make_train_step
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "eager_steps")
compiled = pytest.mark.usefixtures("compiled_steps")

MakeRun = Callable[..., Run]

RATE = 0.5
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


class Received:
    """An observer of every second step that keeps what comes back."""

    every = 2
    uses = LayerNorms.uses
    compute = LayerNorms().compute

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[dict[str, float]] = []

    def receive(self, step: int, values: dict[str, float]) -> None:
        self.steps.append(step)
        self.values.append(values)


def step_of(run: Run, clip: Clip, observers: Observers) -> tuple[Any, Callable[[np.ndarray, int], Any]]:
    prepared = prepare(run)
    strategy, model = prepared.step_setup.strategy, prepared.step_setup.network.model
    with strategy.scope():
        prepared.optimizer.build(model.trainable_variables)
    step = make_train_step(prepared.step_setup, prepared.optimizer, clip, None, observers)
    devices = strategy.num_replicas_in_sync

    def take(images: np.ndarray, number: int) -> Any:
        def placed(column: np.ndarray) -> Any:
            shards = np.array_split(column, devices)
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(shards[context.replica_id_in_sync_group])
            )

        columns = (images, np.array([0, 1, 2, 0], np.int32), np.ones(4, np.float32))
        batch = Batch(*(placed(column) if devices > 1 else tf.constant(column) for column in columns))
        return step(batch, tf.constant(number, tf.int64), 4, tf.constant(False))

    return model, take


@compiled
@pytest.mark.parametrize(
    ("devices", "changes"),
    [(1, {}), (1, {"training__accumulation_steps": 2}), (2, {}), (1, {"training__precision": "mixed_float16"})],
    ids=["one device", "accumulation", "two devices", "loss scale"],
)
def test_layer_norms_match_the_weights_before_and_after_a_step(
    make_run: MakeRun, devices: int, changes: dict[str, Any]
) -> None:
    run = make_run(training__learning_rate=RATE, hardware=Hardware(platform="cpu", devices=devices), **changes).changed(
        "training.optimizer", {"type": "SGD"}
    )  # without momentum the gradient is the update by the rate
    received = Received()
    observers = Observers(logged={"norms": received})
    model, take = step_of(run, Clip(), observers)
    before = [np.array(variable) for variable in model.trainable_variables]
    observers.add(0, take(IMAGES, 0).observed)
    after = [np.array(variable) for variable in model.trainable_variables]
    observers.catch_up()
    (values,) = received.values
    paths = [variable.path for variable in model.trainable_variables]
    groups = layer_groups(paths)
    assert sorted(number for numbers in groups.values() for number in numbers) == list(range(len(paths)))
    assert len(values) == 3 * len(groups) > 6
    for group, numbers in groups.items():
        weights = norm([before[number] for number in numbers])
        update = norm([after[number] - before[number] for number in numbers])
        assert values[f"weights/{group}"] == pytest.approx(weights, rel=1e-5)
        assert values[f"update/{group}"] == pytest.approx(update, rel=1e-3, abs=1e-7)
        assert values[f"gradient/{group}"] == pytest.approx(update / RATE, rel=1e-3, abs=1e-7)


def norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))


@compiled
def test_gradients_are_observed_before_clipping_and_the_update_of_a_non_finite_step_is_zero(
    make_run: MakeRun,
) -> None:
    received = Received()
    observers = Observers(logged={"norms": received})
    # The loss of a black image is infinite, by the logarithm of its mean brightness.
    run = make_run(training__learning_rate=RATE, spec__kwargs={"logarithm": True})
    _, take = step_of(run, Clip(norm=1e-3), observers)
    observers.add(0, take(IMAGES, 0).observed)
    broken = take(np.zeros_like(IMAGES), 2)
    assert broken.scalars["num_broken"] > 0
    observers.add(2, broken.observed)
    observers.catch_up()
    whole = [sum(value**2 for key, value in each.items() if key.startswith("gradient")) for each in received.values]
    moved = [sum(value**2 for key, value in each.items() if key.startswith("update")) for each in received.values]
    assert whole[0] ** 0.5 > 1e-2
    assert moved[0] ** 0.5 == pytest.approx(1e-3 * RATE, rel=1e-2)
    assert moved[1] == 0


def test_values_are_received_later_in_order_and_only_for_steps_that_are_due() -> None:
    received = Received()
    observers = Observers(logged={"norms": received})
    observers._keys["logged/norms"] = ("a",)
    for step in range(LAG):
        observers.add(step, {"logged/norms": tf.constant([float(step)] if step % 2 == 0 else [])})
    assert received.steps == []
    observers.add(LAG, {"logged/norms": tf.constant([4.0])})
    assert received.steps == [0]
    observers.catch_up()
    assert received.steps == [0, 2, 4]
    assert received.values == [{"a": 0.0}, {"a": 2.0}, {"a": 4.0}]
    observers.add(6, {"logged/norms": tf.constant([6.0])})
    observers.forget()
    observers.catch_up()
    assert received.steps == [0, 2, 4]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "logs" / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "observer"]


@compiled
def test_norms_are_logged_at_their_interval_and_do_not_change_training(make_run: MakeRun) -> None:
    changes = {"training__epochs": 2, "training__deterministic": True, "training__optimizer": Adam()}
    observed = train_model(make_run(**changes, observers=(LayerNorms(every=3), LayerNorms(every=5))))
    lines = lines_of(observed.path)
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 1), (1, 1), (4, 1), (6, 2), (7, 2)]
    assert all(np.isfinite(list(line.values())[2:-1]).all() for line in lines)
    assert all(key.startswith("layer_norms_2/") for key in list(lines[1])[2:-1])
    (events,) = (observed.path / "logs").glob("events.out.*")
    tags = {
        value.tag
        for record in tf.data.TFRecordDataset(str(events)).as_numpy_iterator()
        for value in tf.compat.v1.Event.FromString(record).summary.value
    }
    assert {"observer/layer_norms/gradient/conv1", "observer/layer_norms_2/update/conv1"} <= tags
    plain = train_model(make_run(**changes, name="plain", observers="none"))
    assert lines_of(plain.path) == []
    assert {**observed.history[-1], "seconds": 0} == {**plain.history[-1], "seconds": 0}


def test_a_user_defined_observer_gets_the_scalars_and_variables_of_a_step(make_run: MakeRun) -> None:
    @final
    class Examples(Observer):
        def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
            return {"seen": step.scalars["num_examples"], "weights": tf.constant(len(step.variables))}

    result = train_model(make_run(observers=({"type": "Examples", "every": 2},)))
    assert [line["examples/seen"] for line in lines_of(result.path)] == [4.0, 4.0]
    assert {"type": "Examples", "every": 2} in json.loads((result.path / "training_options.json").read_text())["run"][
        "observers"
    ]


def test_a_resumed_run_may_have_other_observers(make_run: MakeRun) -> None:
    run = make_run(training__epochs=1, observers=(LayerNorms(every=2),))
    first = train_model(run)
    more = run.changed("training.epochs", 2).changed("observers", (LayerNorms(every=3),))
    result = train_model(more, resume=True)
    assert result.path == first.path
    assert [line["step"] for line in lines_of(result.path)] == [1, 3, 7]


def test_an_observer_named_watch_does_not_disturb_divergence_detection(make_run: MakeRun) -> None:
    @final
    class Watch(Observer):
        def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
            return {"one": tf.constant(1.0)}

    run = make_run(observers=({"type": "Watch", "every": 1},), training__learning_rate=1e30, training__epochs=9)
    with pytest.raises(DivergedError):
        train_model(run.changed("training.divergence.rollbacks", 0))
    (folder,) = Path(run.output_dir).iterdir()
    lines = lines_of(folder)
    assert lines[0]["watch/one"] == 1.0
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) >= 4  # also of the step that ended the run


def test_values_before_a_crash_are_logged(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = MetricAccumulator.add, []

    def add(self: MetricAccumulator, sums: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("crash")
        original(self, sums)  # type: ignore[arg-type]

    monkeypatch.setattr(MetricAccumulator, "add", add)
    run = make_run(observers=(LayerNorms(every=1),))
    with pytest.raises(RuntimeError, match="crash"):
        train_model(run)
    (folder,) = Path(run.output_dir).iterdir()
    assert [line["step"] for line in lines_of(folder)] == [1, 2, 3]


def test_mistakes_in_an_observer_are_errors_that_name_them(make_run: MakeRun) -> None:
    with pytest.raises(TypeError, match="Wrong.uses has 'gradient'; it may have gradients and updates"):

        class Wrong(Observer):
            uses: ClassVar[tuple[Any, ...]] = ("gradient",)

            def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
                return {}

    @final
    class Silent(Observer):
        def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
            return {"n": tf.add_n([tf.norm(each) for each in step.updates])}

    @final
    class Vector(Observer):
        def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
            return {"row": tf.constant([1.0, 2.0])}

    with pytest.raises(ConfigError, match=r'reads updates and must declare it: .* = \("updates",\)'):
        train_model(make_run(observers=(Silent(),)))
    with pytest.raises(ConfigError, match=r"\(vector\) should compute scalars, but 'row' has shape \(2,\)"):
        train_model(make_run(observers=(Vector(),)))


def test_weights_of_any_dtype_are_observed_on_several_devices(make_run: MakeRun) -> None:
    def make() -> keras.Model:
        inputs = keras.Input((16, 16, 3))
        features = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(inputs))
        wide = keras.layers.Dense(4, dtype="float64", name="wide")(features)
        outputs = keras.layers.Dense(3, name="last")(keras.layers.Dense(4, name="middle")(wide))
        nothing = keras.layers.Rescaling(0.0)(keras.layers.Dense(3, name="unused")(wide))
        return keras.Model(inputs, keras.layers.Add()([outputs, nothing]))

    for devices in (1, 2):
        run = make_run(
            network=OwnModel(model=Live(make())),
            hardware=Hardware(platform="cpu", devices=devices),
            observers=(LayerNorms(every=1),),
        )
        line = lines_of(train_model(run).path)[0]
        assert line["layer_norms/gradient/wide"] > 0
        assert line["layer_norms/gradient/unused"] == 0


def test_sparse_and_missing_gradients_become_dense_tensors() -> None:
    table, other = keras.Variable(np.ones((4, 2), np.float32)), keras.Variable(np.ones(3, np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table.value, [1, 1]))
    gradients = _dense(tape.gradient(loss, [table.value, other.value]), [table, other])
    np.testing.assert_array_equal(gradients[0], [[0, 0], [2, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(gradients[1], [0, 0, 0])
