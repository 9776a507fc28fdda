from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from model_trainer.metrics.ranking import one_vs_rest

Predictions = tuple[np.ndarray, np.ndarray]


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    """Labels of some of the classes, and float32 probabilities, many of them tied."""
    num_classes, num_images = draw(st.integers(1, 5)), draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    probabilities = random.integers(0, draw(st.sampled_from([1, 3, 10_000])), (num_images, num_classes)) / 10_000
    return random.integers(0, num_classes, num_images), probabilities.astype(np.float32)


@given(predictions())
@settings(max_examples=50)
def test_auroc_and_average_precision_match_scikit_learn_for_each_class_against_the_rest(case: Predictions) -> None:
    labels, probabilities = case
    auroc, average_precision = one_vs_rest(labels, probabilities)
    for index in range(probabilities.shape[1]):
        own = labels == index
        is_defined = own.any()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the class that is missing
            expected = sk.roc_auc_score(own, probabilities[:, index]) if is_defined else np.nan
            expected_precision = sk.average_precision_score(own, probabilities[:, index]) if is_defined else np.nan
        assert auroc[index] == pytest.approx(expected, nan_ok=True)
        assert average_precision[index] == pytest.approx(expected_precision, nan_ok=True)


def test_the_mean_over_classes_matches_the_macro_average_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, probabilities = np.arange(60) % 4, random.dirichlet(np.ones(4), 60).astype(np.float32)
    auroc, average_precision = one_vs_rest(labels, probabilities)
    own = np.eye(4)[labels]
    assert auroc.mean() == pytest.approx(sk.roc_auc_score(labels, probabilities.astype(np.float64), multi_class="ovr"))
    assert average_precision.mean() == pytest.approx(sk.average_precision_score(own, probabilities))


def test_blocks_of_classes_give_the_results_of_the_whole_table() -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 7, 50), random.random((50, 7), np.float32)
    assert np.array_equal(one_vs_rest(labels, probabilities, max_bytes=2 * 200), one_vs_rest(labels, probabilities))


def test_equal_probabilities_rank_at_chance() -> None:
    auroc, average_precision = one_vs_rest(np.array([0, 0, 0, 1]), np.full((4, 2), 0.5, np.float32))
    assert auroc.tolist() == [0.5, 0.5]
    assert average_precision.tolist() == [0.75, 0.25]


def test_a_class_that_all_images_have_has_no_roc_curve() -> None:
    auroc, average_precision = one_vs_rest(np.array([0, 0]), np.array([[0.7, 0.3], [0.6, 0.4]], np.float32))
    assert np.isnan(auroc).all()
    assert average_precision[0] == 1.0


def test_a_class_with_a_nan_probability_is_undefined() -> None:
    table = np.array([[0.7, np.nan], [0.6, 0.4]], np.float32)
    auroc, average_precision = one_vs_rest(np.array([0, 1]), table)
    assert np.isnan(auroc).tolist() == np.isnan(average_precision).tolist() == [False, True]


def test_the_given_probabilities_are_not_sorted_in_place() -> None:
    table = np.array([[0.7, 0.3], [0.6, 0.4], [0.8, 0.2]], np.float32, order="F")
    before = table.copy()
    one_vs_rest(np.array([0, 1, 1]), table)
    assert np.array_equal(table, before)
