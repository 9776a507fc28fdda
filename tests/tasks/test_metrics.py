from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from model_trainer import Accuracy, MacroRecall, TopK
from model_trainer.tasks.metrics import Metric

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 7, 60)
PROBABILITIES = RANDOM.dirichlet(np.ones(7), 60).astype(np.float32)
WEIGHTS = RANDOM.integers(0, 4, 60).astype(np.float32)
TARGETS = np.eye(7, dtype=np.float32)[LABELS]


def value_of(metric: Metric, *parts: slice) -> float:
    sums = [metric.sums(TARGETS[part], PROBABILITIES[part], WEIGHTS[part]).numpy() for part in parts]
    return metric.value(np.sum(sums, axis=0, dtype=np.float64))


def expected_of(metric: Metric) -> float:
    predicted = PROBABILITIES.argmax(axis=1)
    if isinstance(metric, Accuracy):
        return reference.accuracy_score(LABELS, predicted, sample_weight=WEIGHTS)
    if isinstance(metric, TopK):
        return reference.top_k_accuracy_score(LABELS, PROBABILITIES, k=metric.k, sample_weight=WEIGHTS)
    return reference.recall_score(LABELS, predicted, average="macro", sample_weight=WEIGHTS)


METRICS = [Accuracy(), TopK(k=2), TopK(k=5), MacroRecall()]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_that_of_scikit_learn(metric: Metric) -> None:
    assert value_of(metric, slice(None)) == pytest.approx(expected_of(metric), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_of_parts_is_that_of_the_whole(metric: Metric) -> None:
    parts = slice(0, 13), slice(13, 14), slice(14, 60)
    assert value_of(metric, *parts) == pytest.approx(value_of(metric, slice(None)), abs=1e-6)


def test_a_class_without_images_does_not_count_in_macro_recall() -> None:
    targets = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    sums = MacroRecall().sums(targets, targets, np.ones(3, np.float32))
    assert MacroRecall().value(sums.numpy()) == 1.0


def test_more_than_all_classes_are_always_right() -> None:
    assert value_of(TopK(k=50), slice(None)) == 1.0


def test_nothing_counted_is_no_number() -> None:
    assert np.isnan(Accuracy().value(np.zeros(2)))
