from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from model_trainer.metrics.bootstrap import bootstrap_interval
from model_trainer.metrics.paired import (
    Agreement,
    agreement,
    compare_scores,
    compare_statistic,
    discordant_images,
    mcnemar,
)

RANDOM = np.random.default_rng(7)
FIRST = RANDOM.random(300) < 0.7
SECOND = np.where(RANDOM.random(300) < 0.3, RANDOM.random(300) < 0.9, FIRST)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_smaller_binomial_tail(only_first: int, only_second: int) -> None:
    tail = stats.binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)
    assert mcnemar(only_first, only_second) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_with_very_many_images_is_close_to_the_chi_square_test() -> None:
    assert mcnemar(499_000, 501_000) == pytest.approx(stats.chi2.sf(2000**2 / 1_000_000, 1), rel=0.01)


def test_agreement_counts_the_four_cells() -> None:
    counts = agreement(np.array([1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 1]))
    assert counts == Agreement(both_right=2, only_first=1, only_second=1, both_wrong=1)


def test_changed_sides_lists_the_images_behind_the_counts() -> None:
    changed, counts = discordant_images(FIRST, SECOND), agreement(FIRST, SECOND)
    assert (len(changed.only_first), len(changed.only_second)) == (counts.only_first, counts.only_second)
    assert FIRST[changed.only_first].all()
    assert not FIRST[changed.only_second].any()
    assert SECOND[changed.only_second].all()


def test_accuracies_are_compared_with_mcnemars_test_and_an_interval_of_the_paired_difference() -> None:
    compared = compare_scores(FIRST, SECOND)
    change = SECOND.astype(float) - FIRST
    low, high = bootstrap_interval(lambda counts: counts @ change / 300, 300)
    assert (compared.difference, compared.low, compared.high) == (pytest.approx(change.mean()), low, high)
    assert compared.test == "McNemar"
    assert compared.p_value == mcnemar(compared.agreement.only_first, compared.agreement.only_second)


def test_the_paired_bootstrap_is_close_to_the_paired_t_test() -> None:
    first = RANDOM.gamma(2.0, size=400)
    second = first + RANDOM.normal(0.02, 0.2, 400)
    compared, expected = compare_scores(first, second), stats.ttest_rel(second, first)
    assert 0.005 < expected.pvalue < 0.2
    assert compared.p_value == pytest.approx(expected.pvalue, abs=0.03)
    interval = expected.confidence_interval(0.95)
    assert compared.low == pytest.approx(interval.low, abs=0.005)
    assert compared.high == pytest.approx(interval.high, abs=0.005)
    assert compared.test == "bootstrap"


def test_any_metric_is_compared_on_the_same_resamples() -> None:
    values = RANDOM.random(50)
    noisy = compare_statistic(lambda counts: counts @ values, lambda counts: counts @ values + 1.0, 50)
    assert (noisy.difference, noisy.low, noisy.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert noisy.p_value == pytest.approx(2 / 1001)


def test_swapping_the_models_flips_the_sign_and_keeps_the_p_value() -> None:
    first, second = RANDOM.random(40), RANDOM.random(40)
    one, other = compare_scores(first, second), compare_scores(second, first)
    assert (one.difference, one.low, one.p_value) == pytest.approx((-other.difference, -other.high, other.p_value))


@pytest.mark.parametrize("values", [FIRST, RANDOM.random(30), np.array([True]), np.array([0.3])])
def test_equal_models_have_no_difference_and_p_is_1(values: np.ndarray) -> None:
    compared = compare_scores(values, values)
    assert (compared.difference, compared.low, compared.high, compared.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(("first", "second"), [(False, True), (0.25, 1.25)], ids=["right or wrong", "a loss"])
def test_one_image_has_a_p_value_of_1(first: float, second: float) -> None:
    compared = compare_scores(np.array([first]), np.array([second]))
    assert (compared.difference, compared.p_value, compared.num_images) == (1, 1, 1)


def test_the_p_value_of_few_images_is_that_of_the_sign_test() -> None:
    compared = compare_scores(np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4]))
    assert compared.p_value == stats.binomtest(0, 4).pvalue


def test_images_without_a_value_in_one_model_are_excluded_from_both() -> None:
    first, second = np.array([1.0, np.nan, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, np.nan])
    assert compare_scores(first, second).agreement == Agreement(1, 0, 1, 0)


def test_without_images_the_difference_is_undefined_and_p_is_1() -> None:
    compared = compare_scores(np.array([np.nan]), np.array([1.0]))
    assert np.isnan(compared.difference)
    assert json.loads(json.dumps(compared.to_dict(), allow_nan=False))["difference"] is None
    assert compared.p_value == 1


def test_models_evaluated_on_different_numbers_of_images_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(300,\) and \(299,\). Evaluate both models on the same data"):
        compare_scores(FIRST, SECOND[1:])
    with pytest.raises(ValueError, match="the same images"):
        discordant_images(FIRST, SECOND[1:])
