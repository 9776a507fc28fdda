from __future__ import annotations

import keras
import numpy as np
import pytest

from model_trainer import Constant, Cosine, Exponential, InverseTime, Polynomial, ReduceOnPlateau, StepDecay
from model_trainer.run.schedules import Schedule

STEPS_PER_EPOCH, EPOCHS = 10, 6
NUM_STEPS = STEPS_PER_EPOCH * EPOCHS

KERAS = keras.optimizers.schedules
SAME_IN_KERAS = [
    (Cosine(final=0.1), KERAS.CosineDecay(1.0, NUM_STEPS, alpha=0.1)),
    (StepDecay(every_epochs=2, rate=0.5), KERAS.ExponentialDecay(1.0, 2 * STEPS_PER_EPOCH, 0.5, staircase=True)),
    (Exponential(rate=0.9), KERAS.ExponentialDecay(1.0, STEPS_PER_EPOCH, 0.9)),
    (Polynomial(power=2, final=0.05), KERAS.PolynomialDecay(1.0, NUM_STEPS, 0.05, power=2)),
    (InverseTime(decay=0.01), KERAS.InverseTimeDecay(1.0, 1, 0.01)),
]


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(step, STEPS_PER_EPOCH, EPOCHS) for step in range(NUM_STEPS)]


@pytest.mark.parametrize(("ours", "theirs"), SAME_IN_KERAS, ids=lambda value: type(value).__name__)
def test_a_schedule_matches_keras(ours: Schedule, theirs: keras.optimizers.schedules.LearningRateSchedule) -> None:
    expected = [float(theirs(step)) for step in range(NUM_STEPS)]
    np.testing.assert_allclose(factors(ours), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", [Constant, Cosine, StepDecay, Exponential, Polynomial, InverseTime])
def test_a_warm_up_rises_linearly_to_1_and_the_curve_starts_after_it(schedule: type[Schedule]) -> None:
    with_warmup = factors(schedule(warmup_epochs=1.5))
    np.testing.assert_allclose(with_warmup[:15], np.arange(1, 16) / 15)
    assert with_warmup[15] == pytest.approx(1.0)


def factors_by_epoch(schedule: ReduceOnPlateau, values: list[float]) -> list[float]:
    """The factor after each epoch of a run in which the monitored metric has these values."""
    history = [{schedule.monitor: value} for value in values]
    return [schedule.factor(0, 10, 100, history[: epoch + 1]) for epoch in range(len(values))]


def test_reduce_on_plateau_matches_keras() -> None:
    values = [1.0, 0.9, 0.91, 0.92, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6]
    ours = factors_by_epoch(ReduceOnPlateau(rate=0.5, patience=2, min_delta=0.01), values)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    theirs = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=2, min_delta=0.01, mode="min")
    theirs.set_model(model)
    theirs.on_train_begin()
    expected = []
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"val_loss": value})
        expected.append(float(model.optimizer.learning_rate.numpy()))
    assert ours == pytest.approx(expected)
    assert min(ours) < 1.0


def test_reduce_on_plateau_expects_accuracy_to_rise_and_stops_at_the_lower_bound() -> None:
    schedule = ReduceOnPlateau(monitor="val_accuracy", rate=0.1, patience=1, least=0.05)
    assert factors_by_epoch(schedule, [0.1, 0.2, 0.2, 0.2]) == pytest.approx([1.0, 1.0, 0.1, 0.05])


def test_only_a_constant_schedule_without_warm_up_never_changes_the_rate() -> None:
    assert not Constant().moves
    assert Constant(warmup_epochs=1).moves
    assert Cosine().moves
