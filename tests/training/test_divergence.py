"""A loss that is NaN or rises steeply: the bad step itself, its detection, and the rollback."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer import SGD, Hardware, Run, load_model
from model_trainer.errors import DivergedError
from model_trainer.pipeline.batch import Batch
from model_trainer.run.training import Divergence
from model_trainer.sources import ImageFolder
from model_trainer.training.average import WeightAverage
from model_trainer.training.checkpoints.store import read_newest
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step
from model_trainer.training.train import train_model
from model_trainer.training.watch import DivergenceDetector, Diverging, Health
from model_trainer.user_code import Live

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")
compiled = pytest.mark.usefixtures("compiled_steps")

MakeRun = Callable[..., Run]

# A black image makes this network's loss infinite: it takes the logarithm of the mean brightness.
POISONABLE = {"spec__kwargs": {"logarithm": True, "batch_normalization": True}}


@pytest.fixture
def poisoned(draw_folder: Callable[..., Path], tmp_path: Path) -> ImageFolder:
    """15 images, of which one is black."""
    folder = draw_folder(tmp_path / "data", 5)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "red" / "0.png")
    return ImageFolder(folder)


def values_of(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [np.array(variable) for variable in variables]


@compiled
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_with_a_non_finite_loss_changes_nothing(make_run: MakeRun, devices: int) -> None:
    run = make_run(**POISONABLE, hardware=Hardware(devices=devices, platform="cpu"))
    prepared = prepare(run)
    model, optimizer, strategy = prepared.step_setup.network.model, prepared.optimizer, prepared.step_setup.strategy
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    average = WeightAverage(
        model.trainable_variables, prepared.step_setup.network.moving_statistics.variables, 0.9, strategy
    )
    step = make_train_step(prepared.step_setup, optimizer, Clip(), average)
    variables = [*model.variables, *optimizer.variables, *average.variables]
    before = values_of(variables)

    def take(images: np.ndarray) -> list[np.ndarray]:
        def placed(column: np.ndarray) -> Any:
            if devices == 1:
                return tf.constant(column)
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(column[context.replica_id_in_sync_group :][:1])
            )

        batch = Batch(placed(images), placed(np.array([0, 1], np.int32)), placed(np.ones(2, np.float32)))
        result = step(batch, tf.constant(0, tf.int64), 2, tf.constant(False))
        return [result.scalars["num_broken"].numpy(), *(each.numpy() for each in result.sums.values())]

    gray, black = np.full((2, 16, 16, 3), 90, np.uint8), np.full((2, 16, 16, 3), 90, np.uint8)
    black[1] = 0  # on the second device, where there are two
    num_broken, *sums = take(black)
    assert num_broken > 0
    assert all((each == 0).all() for each in sums)
    for old, new, variable in zip(before, values_of(variables), variables, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=variable.path)
    num_broken, *sums = take(gray)
    assert num_broken == 0
    changed = [not np.array_equal(old, new) for old, new in zip(before, values_of(variables), strict=True)]
    assert sum(changed) > 10  # weights, averages, statistics of batch normalization, momentum


def test_an_image_with_an_infinite_loss_skips_a_step_and_is_listed_in_bad_steps_csv(
    make_run: MakeRun, poisoned: ImageFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    result = train_model(make_run(**POISONABLE, train_data=poisoned, training__epochs=3))
    assert [math.isfinite(row["loss"]) for row in result.history] == [True] * 3
    assert all(np.isfinite(weight.numpy()).all() for weight in load_model(result.path, trust=True).model.weights)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "was not applied" in line]
    assert len(warnings) == 3  # once an epoch
    assert all(f"{poisoned.path}/red/0.png" in line for line in warnings)
    rows = (result.path / "bad_steps.csv").read_text().splitlines()
    assert rows[0] == "step,image,why"
    assert sum(f"{poisoned.path}/red/0.png,not finite" in row for row in rows) == 3


@compiled
def test_training_rolls_back_and_skips_the_batches_that_caused_it(
    make_run: MakeRun, poisoned: ImageFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    result = train_model(
        make_run(**POISONABLE, train_data=poisoned, training__epochs=2, training__divergence=Divergence(bad_steps=1))
    )
    error = capfd.readouterr().err
    assert error.count("training rolls back to step 0 of epoch 1, rollback 1 of 3.") == 1
    assert f"{poisoned.path}/red/0.png" in error
    assert len(result.history) == 2
    saved = read_newest(result.path / "checkpoints")
    assert saved is not None
    assert saved.state["rollbacks"] == 2  # the image comes in both epochs
    assert len(saved.state["skipped"]) in (3, 4)  # its step and the one before, if there was one


def test_an_absurd_learning_rate_ends_with_an_error_that_names_images_and_a_cure(make_run: MakeRun) -> None:
    run = make_run(training__learning_rate=1e30, training__epochs=9)
    with pytest.raises(DivergedError) as caught:
        train_model(run)
    message = str(caught.value)
    assert "Training diverged after 3 rollbacks: loss or gradients were not finite in 3 steps" in message
    assert ".png" in message
    assert "--set training.divergence.learning_rate_factor=0.1" in message
    assert DivergedError.exit_code == 3


def test_a_lowered_learning_rate_saves_the_run(make_run: MakeRun) -> None:
    run = make_run(
        training__learning_rate=1e30,
        training__epochs=6,
        training__divergence=Divergence(learning_rate_factor=1e-32, rollbacks=1),
    )
    result = train_model(run)
    assert math.isfinite(result.history[-1]["loss"])
    assert result.history[-1]["learning_rate"] == pytest.approx(0.01)
    assert all(np.isfinite(weight.numpy()).all() for weight in load_model(result.path, trust=True).model.weights)


class Absurd(keras.callbacks.Callback):
    """Throws the weights away in the fourth epoch, by a rate that is far too high but leaves them finite."""

    is_done = False

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == 3 and not self.is_done:
            self.model.optimizer.learning_rate = 3e3
            self.is_done = True


def test_a_spike_of_the_loss_rolls_training_back(make_run: MakeRun, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(training__optimizer=SGD(), training__epochs=6, callbacks=(Absurd(),))
    result = train_model(run)
    error = capfd.readouterr().err
    assert "The loss rose from" in error
    assert "training rolls back to step 0 of epoch 4, rollback 1 of 3. Steps 1, 2, 3, 4 of epoch 4 are skipped" in error
    assert "was not applied" not in error
    assert result.history[-1]["loss"] < result.history[0]["loss"]  # the checkpoint restores the learning rate, too


def test_a_resumed_run_remembers_its_rollbacks(make_run: MakeRun, poisoned: ImageFolder) -> None:
    run = make_run(**POISONABLE, train_data=poisoned, training__divergence=Divergence(bad_steps=1))
    first = train_model(run)
    result = train_model(run.changed("training.epochs", 2), resume=True)
    assert result.path == first.path
    saved = read_newest(result.path / "checkpoints")
    assert saved is not None
    assert saved.state["rollbacks"] == 2
    lines = (result.path / "logs" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["epoch"] == 2


def test_a_rollback_to_before_unfreezing_freezes_the_layers_again(make_run: MakeRun) -> None:
    run = make_run(
        network__freeze=("conv1",),
        network__unfreeze={"after_epochs": 1, "learning_rate": 1e30},
        training__epochs=4,
        training__divergence=Divergence(learning_rate_factor=1e-32, rollbacks=1),
    )
    result = train_model(run)
    assert len(result.history) == 4
    assert math.isfinite(result.history[-1]["loss"])
    assert result.history[-1]["learning_rate"] == pytest.approx(0.01)


def test_a_run_without_rollbacks_ends_at_once_and_resumes_with_other_limits(make_run: MakeRun) -> None:
    run = make_run(training__epochs=6, callbacks=(Absurd(),), training__divergence=Divergence(rollbacks=0))
    with pytest.raises(
        DivergedError, match=r"^Training diverged: the loss rose from .*\nSteps 1, 2, 3, 4 of epoch 4: "
    ):
        train_model(run)
    patient = run.changed("training.divergence", Divergence(learning_rate_factor=0.5)).changed("callbacks", (Absurd(),))
    result = train_model(patient, resume=True)
    assert len(result.history) == 6
    saved = read_newest(result.path / "checkpoints")
    assert saved is not None
    assert (saved.state["rollbacks"], saved.state["rate_cut"]) == (1, 0.5)


class Poison(keras.callbacks.Callback):
    """Makes the weights infinite before a step, counted from 0 in each epoch, once.

    Args:
        stop_after: asks the process to stop after so many steps.
    """

    def __init__(self, epoch: int, batch: int, stop_after: int = 0) -> None:
        super().__init__()
        self.epoch, self.position, self.steps_left = 0, (epoch, batch), stop_after

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if (self.epoch, batch) == self.position:
            self.position = (-1, -1)
            self.model.set_weights([np.full_like(weight, np.inf) for weight in self.model.get_weights()])

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.slow
def test_a_rollback_after_a_resume_with_another_batch_size_counts_its_steps(make_run: MakeRun) -> None:
    run = make_run(training__epochs=3, training__divergence=Divergence(bad_steps=1))
    train_model(run.changed("callbacks", (Poison(9, 9, stop_after=6),)))  # 8 images of the second epoch
    poison = Poison(1, 1)
    poison.epoch = 1  # a resumed epoch begins in its middle
    result = train_model(run.changed_all({"training.batch_size": 8, "callbacks": (poison,)}), resume=True)
    log = (result.path / "logs" / "train.log").read_text()
    assert "resumed at step 1 of epoch 2" in log
    assert "training rolls back to step 1 of epoch 2, rollback 1 of 3. Step 2 of epoch 2 is skipped" in log
    assert len(result.history) == 3


@pytest.fixture(scope="module")
def rolled_back(
    short_pipeline: None, plain_graphs: None, declare_run: MakeRun, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of three epochs that was rolled back in the third."""
    changes = {"training__epochs": 3, "training__divergence": Divergence(bad_steps=1), "callbacks": (Poison(2, 0),)}
    return train_model(declare_run(**changes, output_dir=str(tmp_path_factory.mktemp("rolled_back")))).path


def test_log_lines_of_abandoned_steps_are_removed(rolled_back: Path) -> None:
    assert "training rolls back to step 0 of epoch 2" in (rolled_back / "logs" / "train.log").read_text()
    lines = [json.loads(line) for line in (rolled_back / "logs" / "metrics.jsonl").read_text().splitlines()]
    positions = [(line["kind"], line["step"]) for line in lines]
    assert len(positions) == len(set(positions))
    assert [line["step"] for line in lines if line["kind"] == "epoch"] == [4, 8, 12]


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_shows_no_abandoned_steps(rolled_back: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(rolled_back / "logs")).Reload()
    assert [event.step for event in events.Scalars("epoch/val_loss")] == [4, 8, 12]


class Forgets(Poison):
    """In addition, sets all weights to zero when the second epoch begins for the second time."""

    epochs: list[int]

    def __init__(self) -> None:
        super().__init__(2, 0)
        self.epochs, self.kept = [], []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        super().on_epoch_begin(epoch)
        self.epochs.append(epoch)
        if self.epochs.count(1) == 2 and epoch == 1:
            self.model.set_weights([np.zeros_like(weight) for weight in self.model.get_weights()])
            self.model.optimizer.learning_rate = 0.0

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if epoch == 0 and not self.kept:
            self.kept = self.model.get_weights()


def test_the_best_model_is_not_from_an_epoch_that_was_rolled_back(make_run: MakeRun) -> None:
    forgets = Forgets()
    run = make_run(training__epochs=3, training__divergence=Divergence(bad_steps=1), callbacks=(forgets,))
    result = train_model(run)
    assert forgets.epochs == [0, 1, 2, 1, 2]
    for name in ("model_max_acc", "model_min_loss"):
        saved = keras.models.load_model(result.path / f"{name}.hdf5", compile=False)
        for mine, kept in zip(saved.get_weights(), forgets.kept, strict=True):
            np.testing.assert_array_equal(mine, kept, err_msg=name)
    assert not list((result.path / "checkpoints").glob("model_*"))


@compiled
def test_a_loss_scale_that_is_too_high_is_lowered_and_training_continues(make_run: MakeRun) -> None:
    # The squares of gradients have no sum in float32 there: each step that overflows halves the scale.
    inner = keras.optimizers.SGD(0.05)
    scaling = Live(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**68))
    result = train_model(make_run(training__optimizer=scaling, training__epochs=6))
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def observed(loss: float, *, bad: int = 0, stop: int = 0) -> dict[str, float]:
    return {"loss_sum": loss * 4, "num_examples": 4.0, "num_broken": bad, "num_stopping": stop}


def follow(losses: list[float], **limits: object) -> list[int]:
    """The steps that cause a rollback."""
    health = Health()
    for step, loss in enumerate(losses):
        try:
            health.note(step, loss, not math.isfinite(loss), Divergence(**limits))
        except Diverging as error:
            return error.steps
    return []


NAN = math.nan


@pytest.mark.parametrize(
    ("losses", "limits", "expected"),
    [
        ([1, 1, NAN, NAN, 1, NAN, NAN, 1], {}, []),
        ([1, 1, NAN, NAN, NAN], {}, [1, 2, 3, 4]),  # also the last good one, whose update may be the cause
        ([NAN], {"bad_steps": 1}, [0]),
        ([1.0] * 20 + [10.5] * 3, {}, [19, 20, 21, 22]),
        ([1.0] * 20 + [10.5, 1.0] * 5, {}, []),
        ([1.0] * 20 + [10.5, NAN, 10.5], {}, [19, 20, 21, 22]),
        ([1.0] * 20 + [9.5] * 3, {}, []),
        ([1.0] * 9 + [900.0] * 3, {}, []),  # the first losses may vary
        ([1.0] * 9 + [1e9] * 3, {}, [8, 9, 10, 11]),
        ([1.0] * 20 + [1e9] * 3, {"spike_factor": None}, []),
        ([1.0] * 50 + [0.001] * 100 + [0.5], {}, []),  # one wrong label among memorized images
        ([1.0] * 10 + [1.2**power for power in range(60)], {}, True),  # slowly, but to far above its first value
    ],
)
def test_several_bad_steps_or_spikes_in_a_row_cause_a_rollback(
    losses: list[float], limits: dict[str, object], expected: object
) -> None:
    bad_steps = follow(losses, **limits)
    assert bool(bad_steps) if expected is True else bad_steps == expected


def test_each_bad_step_is_reported_and_a_pending_rollback_is_predicted() -> None:
    bad_steps: list[int] = []
    watch = DivergenceDetector(Divergence(bad_steps=2), bad_steps.append)
    watch.receive(0, observed(1.0, bad=1))
    watch.receive(1, observed(1.0))
    assert bad_steps == [0]
    waiting = [(2, observed(1.0, bad=1, stop=1))]
    assert watch.ahead(waiting) is not None
    waiting.append((3, observed(1.0, bad=1)))
    assert watch.ahead(waiting) is None  # so that no checkpoint is taken now
    assert not watch.asked_to_stop
    assert bad_steps == [0]
    watch.receive(*waiting[0])
    assert watch.asked_to_stop
    with pytest.raises(Diverging):
        watch.receive(*waiting[1])
    assert bad_steps == [0, 2, 3]
