from __future__ import annotations

import numpy as np
import pytest

from model_trainer.tasks.classification_evaluation import evaluate_classes

CLASSES = ("cat", "dog", "eel")
# Two cats, one taken for a dog; one dog; no eel.
LABELS = np.array([0, 0, 1])
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]])


def test_the_figures_are_those_counted_by_hand() -> None:
    metrics = evaluate_classes(LABELS, PROBABILITIES, CLASSES, num_bad=1)
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.sensitivity == pytest.approx((1 / 2 + 1) / 2)  # the class without images is left out
    assert metrics.loss == pytest.approx(-(np.log(0.7) + np.log(0.3) + np.log(0.8)) / 3)
    assert metrics.precision.tolist() == [1.0, 0.5, 0.0]
    assert metrics.recall.tolist() == [0.5, 1.0, 0.0]
    assert metrics.support.tolist() == [2, 1, 0]
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (metrics.num_images, metrics.num_bad, metrics.top_5_accuracy) == (3, 1, None)
