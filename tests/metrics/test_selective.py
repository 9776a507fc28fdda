from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_trainer.metrics.selective import THRESHOLDS, accuracy_above_thresholds


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=40)
def test_each_threshold_keeps_the_predictions_that_reach_it(cases: list[tuple[int, bool]]) -> None:
    confidence = np.array([each / 20 for each, _ in cases], np.float32)
    correct = np.array([each for _, each in cases])
    coverage, accuracy = accuracy_above_thresholds(confidence, correct)
    for index, threshold in enumerate(THRESHOLDS):
        kept = correct[confidence >= threshold]
        assert coverage[index] == pytest.approx(len(kept) / len(cases))
        assert accuracy[index] == pytest.approx(kept.mean() if len(kept) else np.nan, nan_ok=True)


def test_an_image_without_a_prediction_is_not_covered() -> None:
    coverage, accuracy = accuracy_above_thresholds(np.array([np.nan, 0.9]), np.array([False, True]), (0.0,))
    assert (coverage.tolist(), accuracy.tolist()) == ([0.5], [1.0])


def test_the_accuracy_of_no_images_is_undefined() -> None:
    coverage, accuracy = accuracy_above_thresholds(np.zeros(0, np.float32), np.zeros(0, bool))
    assert (coverage == 0).all()
    assert np.isnan(accuracy).all()
