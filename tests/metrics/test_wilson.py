from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from model_trainer.metrics.wilson import wilson_interval


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_matches_scipy(total: int, confidence: float) -> None:
    successes = np.unique(np.linspace(0, total, 6).astype(int))
    low, high = wilson_interval(successes, np.full(len(successes), total), confidence)
    for index, count in enumerate(successes):
        expected = binomtest(int(count), total).proportion_ci(confidence, method="wilson")
        assert (low[index], high[index]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_without_trials_is_undefined() -> None:
    assert np.isnan(wilson_interval(0, 0)).all()


def test_the_interval_lies_within_0_and_1_and_contains_the_proportion() -> None:
    low, high = wilson_interval(np.arange(51), np.full(51, 50))
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert ((low <= np.arange(51) / 50) & (np.arange(51) / 50 <= high)).all()
