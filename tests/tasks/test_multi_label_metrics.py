from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from model_trainer.tasks.metrics import FullPassMetric, Metric
from model_trainer.tasks.multi_label_metrics import (
    AveragePrecision,
    ExactMatch,
    MacroF1,
    MeanAveragePrecision,
    MicroF1,
    PrecisionAtK,
    RecallAtK,
)

RANDOM = np.random.default_rng(3)
TARGETS = (RANDOM.random((60, 7)) < 0.3).astype(np.float32)
TARGETS[:, 0], TARGETS[0, 0] = 0, 1  # a rare tag
PROBABILITIES = np.clip(TARGETS * 0.3 + RANDOM.random((60, 7)) * 0.7, 0, 1).astype(np.float32)
WEIGHTS = RANDOM.integers(0, 3, 60).astype(np.float32)
ONES = np.ones(60, np.float32)
PREDICTED = PROBABILITIES >= 0.5


def value_over_batches(metric: Metric, targets: np.ndarray = TARGETS, weights: np.ndarray = ONES) -> float:
    """The metric of all images, computed over three batches of unequal size."""
    if isinstance(metric, FullPassMetric):
        return metric.compute(targets, PROBABILITIES, weights)
    batches = [slice(0, 10), slice(10, 55), slice(55, 60)]
    sums = [metric.sums(targets[batch], PROBABILITIES[batch], weights[batch]).numpy() for batch in batches]
    return metric.value(np.sum(sums, axis=0, dtype=np.float64))


def top(k: int) -> np.ndarray:
    most_probable = np.argsort(-PROBABILITIES, axis=1)[:, :k]
    predicted = np.zeros_like(TARGETS)
    np.put_along_axis(predicted, most_probable, 1, axis=1)
    return predicted


@pytest.mark.parametrize("weights", [ONES, WEIGHTS], ids=["each once", "weighted"])
def test_mean_average_precision_matches_scikit_learn(weights: np.ndarray) -> None:
    counts = weights > 0
    targets, probabilities = TARGETS[counts], PROBABILITIES[counts]
    occurs = targets.any(axis=0)
    expected = sk.average_precision_score(
        targets[:, occurs], probabilities[:, occurs], average="macro", sample_weight=weights[counts]
    )
    assert value_over_batches(MeanAveragePrecision(), weights=weights) == pytest.approx(expected)


@pytest.mark.parametrize("index", range(7))
def test_the_average_precision_of_a_class_matches_scikit_learn(index: int) -> None:
    expected = sk.average_precision_score(TARGETS[:, index], PROBABILITIES[:, index])
    assert value_over_batches(AveragePrecision(index)) == pytest.approx(expected)


@pytest.mark.parametrize("weights", [ONES, WEIGHTS], ids=["each once", "weighted"])
@pytest.mark.parametrize(("metric", "average"), [(MicroF1(), "micro"), (MacroF1(), "macro")])
def test_f1_matches_scikit_learn(metric: Metric, average: str, weights: np.ndarray) -> None:
    expected = sk.f1_score(TARGETS, PREDICTED, average=average, sample_weight=weights, zero_division=0)
    assert value_over_batches(metric, weights=weights) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_at_k_matches_scikit_learn_for_the_k_most_probable(k: int) -> None:
    expected = sk.precision_score(TARGETS, top(k), average="samples", zero_division=0)
    assert value_over_batches(PrecisionAtK(k)) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_recall_at_k_matches_scikit_learn_for_the_k_most_probable(k: int) -> None:
    has_any = TARGETS.any(axis=1)
    expected = sk.recall_score(TARGETS[has_any], top(k)[has_any], average="samples")
    assert value_over_batches(RecallAtK(k)) == pytest.approx(expected)


@pytest.mark.parametrize("weights", [ONES, WEIGHTS], ids=["each once", "weighted"])
def test_exact_match_matches_scikit_learn(weights: np.ndarray) -> None:
    expected = sk.accuracy_score(TARGETS, PREDICTED, sample_weight=weights)
    assert value_over_batches(ExactMatch(), weights=weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "average"), [(MeanAveragePrecision(), ""), (MicroF1(), "micro"), (MacroF1(), "macro")]
)
def test_unknown_labels_are_left_out(metric: Metric, average: str) -> None:
    unknown = RANDOM.random(TARGETS.shape) < 0.3
    unknown[0, 0] = False
    known_by_class = []
    for index in range(7):
        known = ~unknown[:, index]
        known_by_class.append((TARGETS[known, index], PROBABILITIES[known, index]))
    if not average:
        expected = np.mean([sk.average_precision_score(*each) for each in known_by_class])
    elif average == "macro":
        expected = np.mean([sk.f1_score(true, p >= 0.5, zero_division=0) for true, p in known_by_class])
    else:
        expected = sk.f1_score(
            *(np.concatenate(each) for each in zip(*((t, p >= 0.5) for t, p in known_by_class), strict=True))
        )
    assert value_over_batches(metric, np.where(unknown, np.nan, TARGETS).astype(np.float32)) == pytest.approx(expected)


def test_an_unknown_tag_is_not_among_the_k_most_probable() -> None:
    targets = np.array([[np.nan, 1, 0]], np.float32)
    probabilities = np.array([[0.9, 0.8, 0.1]], np.float32)
    assert PrecisionAtK(1).sums(targets, probabilities, np.ones(1, np.float32)).numpy().tolist() == [1, 1]


def test_an_exact_match_compares_known_tags_only() -> None:
    targets = np.array([[np.nan, 1, 0], [0, 1, 0]], np.float32)
    probabilities = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]], np.float32)
    assert ExactMatch().sums(targets, probabilities, np.ones(2, np.float32)).numpy().tolist() == [1, 2]


@pytest.mark.parametrize("metric", [ExactMatch(), PrecisionAtK(1)], ids=["exact match", "precision at k"])
def test_an_image_without_a_known_tag_is_left_out_of_the_mean_over_images(metric: Metric) -> None:
    targets = np.array([[np.nan, np.nan], [1, 0]], np.float32)
    probabilities = np.array([[0.1, 0.1], [0.9, 0.1]], np.float32)
    assert metric.sums(targets, probabilities, np.ones(2, np.float32)).numpy().tolist() == [1, 1]


def test_mean_average_precision_without_any_positive_is_nan() -> None:
    absent = np.zeros((4, 2), np.float32)
    assert np.isnan(MeanAveragePrecision().compute(absent, absent + 0.5, np.ones(4, np.float32)))
