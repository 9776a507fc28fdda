from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from model_trainer.metrics.classification import ConfusionMatrix
from model_trainer.metrics.classification_estimates import class_estimates, overall_estimates
from model_trainer.metrics.image_scores import score_images

RANDOM = np.random.default_rng(4)
LABELS = RANDOM.integers(0, 6, 40)
PROBABILITIES = RANDOM.dirichlet(np.ones(6), 40)
PROBABILITIES[np.arange(40), LABELS] += np.where(np.arange(40) < 4, -0.1, 0.1)  # four true classes rank last
PROBABILITIES = np.maximum(PROBABILITIES, 0.001)
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)
SCORES = score_images(LABELS, PROBABILITIES)


def matthews(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The multi-class correlation coefficient of one-hot labels and predictions, as Gorodkin defines it."""
    true, one_hot = (np.eye(6)[each] - np.eye(6)[each].mean(axis=0) for each in (labels, predicted))
    return (true * one_hot).sum() / np.sqrt((true**2).sum() * (one_hot**2).sum())


def test_each_interval_matches_that_of_the_metric_over_resampled_images() -> None:
    """Plain NumPy draws the images; each metric is computed again from those drawn."""
    random, resampled = np.random.default_rng(0), []
    for _ in range(1000):
        rows = random.integers(0, 40, 40)
        labels, table, predicted = LABELS[rows], PROBABILITIES[rows], SCORES.predicted[rows]
        own = table[np.arange(40), labels]
        resampled.append(
            {
                "accuracy": np.mean(labels == predicted),
                "matthews": matthews(labels, predicted),
                "log_loss": -np.log(own).mean(),
                "top_5_accuracy": np.mean(own > table.min(axis=1)),  # of 6 classes
                "brier": ((table - np.eye(6)[labels]) ** 2).sum(axis=1).mean(),
            }
        )
    estimates = overall_estimates(SCORES, ConfusionMatrix.of(LABELS, SCORES.predicted, 6))
    for name in resampled[0]:
        low, high = np.percentile([metrics[name] for metrics in resampled], [2.5, 97.5])
        assert (estimates[name].low, estimates[name].high) == pytest.approx((low, high), abs=1e-9), name


def test_an_interval_contains_its_value() -> None:
    for name, estimate in overall_estimates(SCORES, ConfusionMatrix.of(LABELS, SCORES.predicted, 6)).items():
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high, name


def test_precision_recall_and_specificity_have_wilson_intervals() -> None:
    columns = class_estimates(ConfusionMatrix.of(LABELS, SCORES.predicted, 6).counts())
    for index in range(6):
        own, predicted = index == LABELS, SCORES.predicted == index
        for name, successes, totals in (
            ("precision", own & predicted, predicted),
            ("recall", own & predicted, own),
            ("specificity", ~own & ~predicted, ~own),
        ):
            expected = binomtest(int(successes.sum()), int(totals.sum())).proportion_ci(method="wilson")
            interval = columns[name]["low"][index], columns[name]["high"][index]
            assert interval == pytest.approx((expected.low, expected.high)), name
    assert "low" not in columns["f1"]
