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


def value_over(metric: Metric, *batches: slice) -> float:
    sums = [metric.sums(TARGETS[batch], PROBABILITIES[batch], WEIGHTS[batch]).numpy() for batch in batches]
    return metric.value(np.sum(sums, axis=0, dtype=np.float64))


def scikit_learn_value(metric: Metric) -> float:
    predicted = PROBABILITIES.argmax(axis=1)
    if isinstance(metric, Accuracy):
        return reference.accuracy_score(LABELS, predicted, sample_weight=WEIGHTS)
    if isinstance(metric, TopK):
        return reference.top_k_accuracy_score(LABELS, PROBABILITIES, k=metric.k, sample_weight=WEIGHTS)
    return reference.recall_score(LABELS, predicted, average="macro", sample_weight=WEIGHTS)


METRICS = [Accuracy(), TopK(k=2), TopK(k=5), MacroRecall()]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_matches_scikit_learn(metric: Metric) -> None:
    assert value_over(metric, slice(None)) == pytest.approx(scikit_learn_value(metric), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_over_batches_equals_that_over_all_examples(metric: Metric) -> None:
    batches = slice(0, 13), slice(13, 14), slice(14, 60)
    assert value_over(metric, *batches) == pytest.approx(value_over(metric, slice(None)), abs=1e-6)


def test_a_class_without_images_does_not_count_in_macro_recall() -> None:
    targets = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    sums = MacroRecall().sums(targets, targets, np.ones(3, np.float32))
    assert MacroRecall().value(sums.numpy()) == 1.0


def test_top_k_accuracy_is_1_if_k_exceeds_the_number_of_classes() -> None:
    assert value_over(TopK(k=50), slice(None)) == 1.0


def test_a_metric_without_examples_is_nan() -> None:
    assert np.isnan(Accuracy().value(np.zeros(2)))
