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


def train(optimizer: keras.optimizers.Optimizer) -> np.ndarray:
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
def test_an_optimizer_updates_weights_as_in_keras(
    ours: Optimizer | Call | Live, theirs: keras.optimizers.Optimizer
) -> None:
    # Adam's fused kernel rounds differently from the separate operations of Keras.
    np.testing.assert_allclose(train(make_optimizer(ours, 0.01)), train(theirs), rtol=0, atol=1e-6)


def test_lamb_follows_the_paper_except_for_decoupled_weight_decay() -> None:
    beta_1, beta_2, epsilon, decay, rate = 0.9, 0.999, 1e-6, 0.1, 0.01
    weights = START.astype(np.float64)
    momentum = velocity = np.zeros_like(weights)
    for step, gradient in enumerate(GRADIENTS.astype(np.float64), start=1):
        momentum = beta_1 * momentum + (1 - beta_1) * gradient
        velocity = beta_2 * velocity + (1 - beta_2) * gradient**2
        direction = (momentum / (1 - beta_1**step)) / (np.sqrt(velocity / (1 - beta_2**step)) + epsilon)
        weights = weights - rate * decay * weights
        weights = weights - rate * np.linalg.norm(weights) / np.linalg.norm(direction) * direction
    np.testing.assert_allclose(train(make_optimizer(LAMB(weight_decay=decay), rate)), weights, rtol=1e-4)


def test_lamb_updates_weights_that_are_all_zero() -> None:
    optimizer = make_optimizer(LAMB(), 0.01)
    variable = keras.Variable(np.zeros((2, 2), np.float32))
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones((2, 2))])
    assert np.isfinite(variable.numpy()).all()
    assert (variable.numpy() < 0).all()


def test_the_learning_rate_of_a_live_optimizer_is_replaced_by_that_of_the_run() -> None:
    assert float(make_optimizer(Live(value=KERAS.Adagrad(0.7)), 0.01).learning_rate.numpy()) == pytest.approx(0.01)


def test_an_object_that_is_not_an_optimizer_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"`training.optimizer` should be a Keras optimizer"):
        make_optimizer(Live(value=object()), 0.01)


@pytest.mark.parametrize("wrap", [lambda inner: inner, KERAS.LossScaleOptimizer], ids=["plain", "loss scale"])
def test_a_schedule_inside_an_optimizer_is_rejected(wrap: Callable[..., keras.optimizers.Optimizer]) -> None:
    with pytest.raises(ConfigError, match=r"declare it as `training.schedule`"):
        make_optimizer(Live(value=wrap(KERAS.Adam(KERAS.schedules.CosineDecay(1.0, 10)))), 0.01)
