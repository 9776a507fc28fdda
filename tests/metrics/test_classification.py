from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from model_trainer.metrics.classification import ConfusionMatrix, class_metrics, overall_metrics

Pair = tuple[np.ndarray, np.ndarray, int]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """True and predicted classes; some classes may be missing in either."""
    num_classes = draw(st.integers(2, 6))
    classes = st.integers(0, num_classes - 1)
    label_pairs = draw(st.lists(st.tuples(classes, classes), min_size=1, max_size=30))
    labels, predicted = np.array(label_pairs).T
    return labels, predicted, num_classes


def overall(pair: Pair) -> dict[str, float]:
    return {name: value.item() for name, value in overall_metrics(ConfusionMatrix.of(*pair).counts()).items()}


def by_scikit_learn(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are missing
        metrics = {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "cohen_kappa": sk.cohen_kappa_score(labels, predicted),
            "matthews": sk.matthews_corrcoef(labels, predicted),
        }
        for average in ("macro", "weighted"):
            values = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0.0)
            for name, value in zip(("precision", "recall", "f1"), values, strict=False):
                metrics[f"{average}_{name}"] = value
    return metrics


@given(pairs())
@settings(max_examples=40)
def test_the_metrics_over_all_images_match_scikit_learn(pair: Pair) -> None:
    metrics = overall(pair)
    for name, expected in by_scikit_learn(*pair[:2]).items():
        assert metrics[name] == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@given(pairs())
@settings(max_examples=30)
def test_the_metrics_of_each_class_match_scikit_learn(pair: Pair) -> None:
    labels, predicted, num_classes = pair
    metrics = class_metrics(ConfusionMatrix.of(*pair).counts())
    values = sk.precision_recall_fscore_support(labels, predicted, labels=range(num_classes), zero_division=np.nan)
    for name, expected in zip(("precision", "recall", "f1"), values, strict=False):
        assert metrics[name][0] == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@given(pairs())
@settings(max_examples=30)
def test_specificity_is_the_fraction_of_negatives_that_are_not_predicted_as_the_class(pair: Pair) -> None:
    labels, predicted, num_classes = pair
    specificity = class_metrics(ConfusionMatrix.of(*pair).counts())["specificity"][0]
    for index in range(num_classes):
        negatives = predicted[labels != index]
        expected = (negatives != index).mean() if len(negatives) else np.nan
        assert specificity[index] == pytest.approx(expected, nan_ok=True)


@given(pairs())
@settings(max_examples=30)
def test_the_confusion_matrix_matches_scikit_learn(pair: Pair) -> None:
    expected = sk.confusion_matrix(pair[0], pair[1], labels=range(pair[2]))
    assert np.array_equal(ConfusionMatrix.of(*pair).matrix(), expected)


@given(pairs())
@settings(max_examples=20)
def test_an_image_without_a_prediction_counts_as_predicted_as_an_extra_class(pair: Pair) -> None:
    labels, predicted, num_classes = pair
    predicted = np.where(np.arange(len(predicted)) % 3 == 0, -1, predicted)
    metrics = overall((labels, predicted, num_classes))
    expected = by_scikit_learn(labels, predicted)
    for name in ("accuracy", "balanced_accuracy", "cohen_kappa", "matthews", "weighted_f1"):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_the_largest_confusions_come_first() -> None:
    confusion = ConfusionMatrix.of(np.array([0, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 2, 1, -1]), 3)
    assert confusion.largest() == [(1, 0, 2), (1, 2, 1), (2, 1, 1)]
    assert confusion.largest(1) == [(1, 0, 2)]


def test_a_class_is_most_confused_with_its_most_frequent_wrong_prediction() -> None:
    confusion = ConfusionMatrix.of(np.array([0, 0, 0, 0, 1, 2]), np.array([1, 2, 2, 0, 1, -1]), 3)
    assert confusion.most_confused_with() == [(2, 2), None, None]


def test_21000_classes_do_not_need_a_dense_confusion_matrix() -> None:
    labels = np.arange(21_000)
    confusion = ConfusionMatrix.of(labels, (labels + labels % 2) % 21_000, 21_000)
    assert overall_metrics(confusion.counts())["accuracy"].item() == 0.5
    assert len(confusion.images) == 21_000


def test_resampled_counts_have_the_metrics_of_the_resampled_images() -> None:
    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 3, 20), random.integers(0, 3, 20)
    confusion = ConfusionMatrix.of(labels, predicted, 3)
    drawn = random.integers(0, 20, (4, 20))
    cells = np.array([np.bincount(confusion.cell_of_image[rows], minlength=len(confusion.images)) for rows in drawn])
    resampled = overall_metrics(confusion.counts(cells))
    for index, rows in enumerate(drawn):
        for name, expected in by_scikit_learn(labels[rows], predicted[rows]).items():
            assert resampled[name][index] == pytest.approx(expected), name
