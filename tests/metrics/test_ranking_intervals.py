from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from model_trainer.metrics import ranking_intervals
from model_trainer.metrics.ranking_intervals import macro_intervals


def test_the_intervals_match_those_of_scikit_learns_metrics_over_resampled_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain NumPy draws the images; both metrics are computed again for each class that was drawn."""
    monkeypatch.setattr(ranking_intervals, "RESAMPLES", 30)
    monkeypatch.setattr(ranking_intervals, "_MIN_RESAMPLES", 30)
    random = np.random.default_rng(1)
    labels = random.choice(4, 25, p=[0.1, 0.3, 0.6, 0.0])  # one class does not occur, one rarely
    table = random.integers(0, 6, (25, 4)).astype(np.float32)  # many ties
    draws, values = np.random.default_rng(0), []
    for _ in range(30):
        rows = draws.integers(0, 25, 25)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a class that was not drawn
            each = [
                (sk.roc_auc_score(labels[rows] == index, table[rows, index]),
                 sk.average_precision_score(labels[rows] == index, table[rows, index]))
                for index in np.unique(labels[rows])
            ]  # fmt: skip
        values.append(np.nanmean(each, axis=0))
    expected = np.percentile(values, [2.5, 97.5], axis=0)
    intervals = macro_intervals(labels, table)
    assert intervals is not None
    assert intervals[0] == pytest.approx(expected[:, 0])
    assert intervals[1] == pytest.approx(expected[:, 1])


def test_a_large_table_has_no_interval() -> None:
    assert macro_intervals(np.zeros(60_000, int), np.zeros((60_000, 1), np.float32)) is None


def test_a_table_with_nan_has_no_interval() -> None:
    assert macro_intervals(np.array([0, 1]), np.array([[0.5, np.nan], [0.2, 0.8]])) is None


def test_a_single_class_has_no_roc_curve_in_any_resample() -> None:
    intervals = macro_intervals(np.zeros(5, int), np.arange(5.0)[:, None])
    assert intervals is not None
    assert np.isnan(intervals[0]).all()
    assert intervals[1] == (1.0, 1.0)
