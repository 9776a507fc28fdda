from __future__ import annotations

import numpy as np
import pytest

from model_trainer.metrics.bootstrap import bootstrap_interval, bootstrap_of_cells, num_resamples


def resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Plain NumPy: the mean of the values that each resample draws."""
    random = np.random.default_rng(seed)
    return np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(resamples)])


def mean_of(values: np.ndarray):
    return lambda counts: counts @ values / len(values)


def test_the_interval_holds_95_percent_of_the_means_of_resampled_values() -> None:
    values = np.random.default_rng(1).normal(size=37)
    expected = np.percentile(resampled_means(values, seed=5, resamples=1000), [2.5, 97.5])
    assert bootstrap_interval(mean_of(values), 37, seed=5) == pytest.approx(expected, abs=1e-12)


def test_the_interval_does_not_depend_on_the_size_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=37)
    in_one = bootstrap_interval(mean_of(values), 37)
    monkeypatch.setattr("model_trainer.metrics.bootstrap._BLOCK_BYTES", 8 * 37 * 3)
    assert bootstrap_interval(mean_of(values), 37) == pytest.approx(in_one, abs=1e-12)


def test_several_metrics_at_once_have_the_same_intervals_as_each_alone() -> None:
    values = np.random.default_rng(1).normal(size=(30, 2))
    low, high = bootstrap_interval(mean_of(values), 30)
    for index in range(2):
        assert (low[index], high[index]) == pytest.approx(bootstrap_interval(mean_of(values[:, index]), 30))


def test_another_seed_draws_other_resamples() -> None:
    values = np.random.default_rng(1).normal(size=37)
    assert bootstrap_interval(mean_of(values), 37, seed=0) != bootstrap_interval(mean_of(values), 37, seed=1)


def test_resampling_cells_gives_about_the_interval_of_resampling_images() -> None:
    correct = np.arange(400) < 340
    low, high = bootstrap_interval(mean_of(correct), 400)
    cells_low, cells_high = bootstrap_of_cells(lambda cells: cells[:, 0] / 400, np.array([340, 60]))
    assert (cells_low, cells_high) == pytest.approx((low, high), abs=0.005)  # the interval is 0.07 wide


def test_many_images_are_resampled_less_often() -> None:
    assert num_resamples(100) == 1000
    assert num_resamples(10_000_000) == 200
    assert num_resamples(100, resamples=50) == 50


def test_resamples_in_which_a_metric_is_undefined_do_not_count() -> None:
    values = np.array([1.0, 1.0, 1.0])
    low, high = bootstrap_interval(lambda counts: np.where(counts[:, 0] == 0, np.nan, counts @ values / 3), 3)
    assert (low, high) == pytest.approx((1.0, 1.0))


def test_a_metric_that_is_always_undefined_has_no_interval() -> None:
    assert np.isnan(bootstrap_interval(lambda counts: np.full(len(counts), np.nan), 5)).all()


def test_no_images_have_no_interval() -> None:
    assert np.isnan(bootstrap_interval(lambda counts: counts.sum(axis=1) / 1.0, 0)).all()
    assert np.isnan(bootstrap_of_cells(lambda cells: cells.sum(axis=1) / 1.0, np.array([0, 0]))).all()


def test_one_image_has_an_interval_of_one_point() -> None:
    assert bootstrap_interval(mean_of(np.array([0.5])), 1) == pytest.approx((0.5, 0.5))
