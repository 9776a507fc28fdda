from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from model_trainer.metrics.image_scores import score_images

Predictions = tuple[np.ndarray, np.ndarray]


@st.composite
def predictions(draw: st.DrawFn, min_classes: int = 2) -> Predictions:
    """Labels and float32 probabilities, many of them tied, and some exactly 0 or 1."""
    num_classes, num_images = draw(st.integers(min_classes, 8)), draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    weights = random.integers(0, draw(st.sampled_from([2, 5, 10_000])), (num_images, num_classes)) + 0.0
    weights[weights.sum(axis=1) == 0] = 1.0
    labels = random.integers(0, num_classes, num_images)
    return labels, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@given(predictions())
@settings(max_examples=40)
def test_log_loss_matches_scikit_learn(case: Predictions) -> None:
    labels, probabilities = case
    expected = sk.log_loss(labels, probabilities, labels=range(probabilities.shape[1]))
    assert score_images(labels, probabilities).loss.mean() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(predictions())
@settings(max_examples=40)
def test_the_brier_score_matches_scikit_learn(case: Predictions) -> None:
    labels, probabilities = case
    expected = sk.brier_score_loss(labels, probabilities, labels=range(probabilities.shape[1]))
    assert score_images(labels, probabilities).brier.mean() == pytest.approx(expected, abs=1e-6)


@given(predictions(min_classes=3), st.integers(1, 7))
@settings(max_examples=60)
def test_top_k_accuracy_matches_scikit_learn_even_with_ties(case: Predictions, k: int) -> None:
    labels, probabilities = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k may be the number of classes
        expected = sk.top_k_accuracy_score(labels, probabilities, k=k, labels=range(probabilities.shape[1]))
    assert np.mean(score_images(labels, probabilities).true_rank < k) == pytest.approx(expected)


@given(predictions())
@settings(max_examples=20)
def test_the_prediction_is_the_first_of_the_most_probable_classes(case: Predictions) -> None:
    labels, probabilities = case
    scores = score_images(labels, probabilities)
    assert np.array_equal(scores.predicted, probabilities.argmax(axis=1))
    assert np.array_equal(scores.probability, probabilities.max(axis=1))
    assert np.array_equal(scores.true_probability, probabilities[np.arange(len(labels)), labels])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_a_non_finite_probability_has_no_prediction(value: float) -> None:
    scores = score_images(np.array([0, 1]), np.array([[0.5, value], [0.1, 0.9]], np.float32))
    assert scores.predicted.tolist() == [-1, 1]
    assert scores.true_rank.tolist() == [2, 0]
    assert np.isnan(scores.loss).tolist() == [True, False]
    assert np.isnan(scores.probability).tolist() == [True, False]


def test_chunks_give_the_scores_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 5, 50), random.dirichlet(np.ones(5), 50).astype(np.float32)
    whole = score_images(labels, probabilities)
    monkeypatch.setattr("model_trainer.metrics.image_scores._CHUNK_BYTES", 7 * 20)
    in_chunks = score_images(labels, probabilities)
    assert all(np.array_equal(vars(whole)[name], vars(in_chunks)[name]) for name in vars(whole))


def test_progress_ends_at_1() -> None:
    calls: list[float] = []
    score_images(np.array([0]), np.array([[0.5, 0.5]]), lambda text, fraction: calls.append(fraction))
    assert calls == [1.0]
