from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from model_trainer import LAMB, SGD, Adam, AdamW, Call, Lion, Live, RMSprop
from model_trainer.errors import ConfigError
from model_trainer.run.optimizers import Optimizer, make_optimizer

KERAS = keras.optimizers
START = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(np.float32)
GRADIENTS = np.random.default_rng(1).normal(0, 1, (5, 4, 3)).astype(np.float32)


def trained(optimizer: keras.optimizers.Optimizer) -> np.ndarray:
    variable = keras.Variable(START)
    optimizer.build([variable])
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    return variable.numpy()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(momentum=0.9, nesterov=True), KERAS.SGD(0.01, momentum=0.9, nesterov=True)),
        (Adam(beta_1=0.8), KERAS.Adam(0.01, beta_1=0.8)),
        (Adam(beta_1=0.8, amsgrad=True), KERAS.Adam(0.01, beta_1=0.8, amsgrad=True)),
        (AdamW(weight_decay=0.1), KERAS.AdamW(0.01, weight_decay=0.1)),
        (RMSprop(rho=0.8, momentum=0.5, centered=True), KERAS.RMSprop(0.01, rho=0.8, momentum=0.5, centered=True)),
        (Lion(beta_1=0.8, weight_decay=0.1), KERAS.Lion(0.01, beta_1=0.8, weight_decay=0.1)),
        (Call("keras.optimizers.Adagrad", epsilon=1e-5), KERAS.Adagrad(0.01, epsilon=1e-5)),
        (Live(value=KERAS.Nadam(0.5, beta_1=0.8)), KERAS.Nadam(0.01, beta_1=0.8)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_optimizer_moves_weights_as_that_of_keras(
    ours: Optimizer | Call | Live, theirs: keras.optimizers.Optimizer
) -> None:
    # Adam's one operation rounds otherwise than the twenty of Keras.
    np.testing.assert_allclose(trained(make_optimizer(ours, 0.01)), trained(theirs), rtol=0, atol=1e-6)


def test_lamb_follows_the_paper_but_for_decay_which_is_decoupled() -> None:
    beta_1, beta_2, epsilon, decay, rate = 0.9, 0.999, 1e-6, 0.1, 0.01
    weights = START.astype(np.float64)
    first = second = np.zeros_like(weights)
    for step, gradient in enumerate(GRADIENTS.astype(np.float64), start=1):
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        direction = (first / (1 - beta_1**step)) / (np.sqrt(second / (1 - beta_2**step)) + epsilon)
        weights = weights - rate * decay * weights
        weights = weights - rate * np.linalg.norm(weights) / np.linalg.norm(direction) * direction
    np.testing.assert_allclose(trained(make_optimizer(LAMB(weight_decay=decay), rate)), weights, rtol=1e-4)


def test_lamb_moves_weights_that_are_all_zero() -> None:
    optimizer = make_optimizer(LAMB(), 0.01)
    variable = keras.Variable(np.zeros((2, 2), np.float32))
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones((2, 2))])
    assert np.isfinite(variable.numpy()).all()
    assert (variable.numpy() < 0).all()


def test_the_learning_rate_of_a_live_optimizer_gives_way_to_the_runs() -> None:
    assert float(make_optimizer(Live(value=KERAS.Adagrad(0.7)), 0.01).learning_rate.numpy()) == pytest.approx(0.01)


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`training.optimizer` should be a Keras optimizer"):
        make_optimizer(Live(value=object()), 0.01)


@pytest.mark.parametrize("wrap", [lambda inner: inner, KERAS.LossScaleOptimizer], ids=["plain", "loss scale"])
def test_a_schedule_inside_an_optimizer_is_sent_to_its_home(wrap: Callable[..., keras.optimizers.Optimizer]) -> None:
    with pytest.raises(ConfigError, match=r"say it as `training.schedule`"):
        make_optimizer(Live(value=wrap(KERAS.Adam(KERAS.schedules.CosineDecay(1.0, 10)))), 0.01)
