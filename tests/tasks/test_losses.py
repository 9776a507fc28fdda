from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Call, CrossEntropy, EntropyPenalty, Focal, Live
from model_trainer.errors import ConfigError
from model_trainer.tasks.losses import make_loss, to_probabilities

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (8, 5)).astype(np.float32)
TARGETS = np.eye(5, dtype=np.float32)[RANDOM.integers(0, 5, 8)]
SOFT = RANDOM.dirichlet(np.ones(5), 8).astype(np.float32)
TAGS = RANDOM.integers(0, 2, (8, 5)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("targets", [TARGETS, SOFT])
def test_cross_entropy_matches_keras(targets: np.ndarray) -> None:
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)(targets, LOGITS)
    np.testing.assert_allclose(CrossEntropy()(targets, LOGITS, "softmax"), expected, rtol=1e-5)


def test_cross_entropy_of_a_sigmoid_head_matches_keras() -> None:
    expected = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(TAGS, LOGITS)
    np.testing.assert_allclose(CrossEntropy()(TAGS, LOGITS, "sigmoid"), expected, rtol=1e-5)


def test_focal_loss_matches_keras() -> None:
    expected = keras.losses.CategoricalFocalCrossentropy(alpha=0.3, gamma=1.5, from_logits=True, reduction=None)
    np.testing.assert_allclose(
        Focal(gamma=1.5, alpha=0.3)(TARGETS, LOGITS, "softmax"), expected(TARGETS, LOGITS), rtol=1e-4
    )


def test_focal_loss_of_a_sigmoid_head_matches_keras() -> None:
    expected = keras.losses.BinaryFocalCrossentropy(
        alpha=0.3, gamma=1.5, from_logits=True, apply_class_balancing=True, reduction=None
    )
    np.testing.assert_allclose(Focal(gamma=1.5, alpha=0.3)(TAGS, LOGITS, "sigmoid"), expected(TAGS, LOGITS), rtol=1e-4)


def test_focal_loss_without_gamma_is_cross_entropy() -> None:
    for activation in ("softmax", "sigmoid"):
        focal = Focal(gamma=0.0)(TARGETS, LOGITS, activation)
        np.testing.assert_allclose(focal, CrossEntropy()(TARGETS, LOGITS, activation), rtol=1e-5)


def test_the_entropy_penalty_is_cross_entropy_minus_entropy() -> None:
    p = softmax(LOGITS)
    expected = -(TARGETS * np.log(p)).sum(axis=1) + 0.3 * (p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(EntropyPenalty(strength=0.3)(TARGETS, LOGITS, "softmax"), expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_entropy_penalty_is_finite_at_probability_zero(activation: str) -> None:
    logits = tf.Variable([[0.0, -1e4, 1e4]])
    targets = tf.constant([[0.0, 0.0, 1.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(EntropyPenalty(strength=0.5)(targets, logits, activation))
    gradient = tape.gradient(loss, logits)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    if activation == "softmax":  # a certain and correct prediction: no cross-entropy, no entropy
        assert abs(float(loss)) < 1e-6


def test_any_keras_loss_returns_one_value_per_example() -> None:
    huber = keras.losses.Huber(delta=0.3)
    expected = keras.losses.Huber(delta=0.3, reduction=None)(TARGETS, softmax(LOGITS))
    for declared in (Live(value=huber), Call("keras.losses.Huber", delta=0.3), Live(value=keras.losses.huber)):
        losses = make_loss(declared)(TARGETS, LOGITS, "softmax")
        assert losses.shape == (8,)
        if declared.to_dict().get("object") != "keras.src.losses.losses.huber":
            np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_a_loss_that_returns_one_value_for_the_batch_is_rejected() -> None:
    reduced = Live(value=lambda targets, probabilities: tf.reduce_mean(targets - probabilities))
    with pytest.raises(ConfigError, match="should give one value for each example"):
        make_loss(reduced)(TARGETS, LOGITS, "softmax")


def test_logits_become_probabilities_by_softmax_or_sigmoid() -> None:
    np.testing.assert_allclose(to_probabilities(LOGITS, "softmax"), softmax(LOGITS), rtol=1e-5)
    np.testing.assert_allclose(to_probabilities(LOGITS, "sigmoid"), 1 / (1 + np.exp(-LOGITS)), rtol=1e-5)
