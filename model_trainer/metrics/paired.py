"""Compares two models on the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from model_trainer.metrics.bootstrap import bootstrap_interval
from model_trainer.metrics.estimate import finite_or_none

__all__ = [
    "Agreement",
    "Discordant",
    "PairedComparison",
    "agreement",
    "compare_scores",
    "compare_statistic",
    "discordant_images",
    "mcnemar",
]


@dataclass(frozen=True)
class Agreement:
    """On how many images each of two models is right.

    Attributes:
        both_right, only_first, only_second, both_wrong: number of images.
    """

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int


class Discordant(NamedTuple):
    """Indices of the images that only one of two models gets right, int64, ascending.

    Attributes:
        only_first: right with the first model, wrong with the second.
        only_second: wrong with the first model, right with the second.
    """

    only_first: np.ndarray
    only_second: np.ndarray


@dataclass(frozen=True)
class PairedComparison:
    """The difference between two models on the same images.

    Attributes:
        difference: the second model's value minus the first one's; NaN if it is undefined, such as without images.
        low, high: its 95 % interval, by the bootstrap with the same resamples for both models.
        p_value: how likely a difference at least as large would be if the models were equally good; 1 if they agree on
            every image.
        test: how `p_value` was computed: "McNemar" or "bootstrap".
        num_images: number of images that were compared.
        agreement: None unless the values are right or wrong.

    Example:
        >>> from model_trainer.metrics.paired import compare_scores
        >>> first, second = np.arange(100) < 70, np.arange(100) < 82
        >>> compared = compare_scores(first, second)
        >>> print(f"{compared.difference:.2f} ({compared.low:.2f} to {compared.high:.2f}), p = {compared.p_value:.4f}")
        0.12 (0.06 to 0.19), p = 0.0005
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    num_images: int
    agreement: Agreement | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as strict JSON; an undefined number becomes None."""
        counts = None if self.agreement is None else dict(vars(self.agreement))
        numbers = {name: finite_or_none(getattr(self, name)) for name in ("difference", "low", "high", "p_value")}
        return numbers | {"test": self.test, "images": self.num_images, "agreement": counts}


_UNDEFINED = PairedComparison(float("nan"), float("nan"), float("nan"), 1.0, "bootstrap", 0)


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of McNemar's test: are as many images right with the first model only as with the
    second only?

    It is the exact binomial test, which takes milliseconds even for a million images; 1 without discordant images.

    Example:
        >>> from model_trainer.metrics.paired import mcnemar
        >>> round(mcnemar(5, 15), 4), mcnemar(0, 0)
        (0.0414, 1.0)

    Source: https://doi.org/10.1007/BF02295996
    """
    from scipy import stats

    discordant = only_first + only_second
    if not discordant:
        return 1.0
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def agreement(first: np.ndarray, second: np.ndarray) -> Agreement:
    """Counts the images on which both models, one of them, or neither is right.

    Args:
        first, second: bool `(num_images,)`, whether each model is right.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    return Agreement(
        int((first & second).sum()),
        int((first & ~second).sum()),
        int((~first & second).sum()),
        int((~first & ~second).sum()),
    )


def discordant_images(first: np.ndarray, second: np.ndarray) -> Discordant:
    """Returns the images on which one model is right and the other wrong.

    Args:
        first, second: bool `(num_images,)`, whether each model is right; or float, 0 or 1, where an image
            with NaN is in neither result.

    Raises:
        ValueError: the arrays differ in shape.

    Example:
        >>> from model_trainer.metrics.paired import discordant_images
        >>> changed = discordant_images(np.array([True, True, False]), np.array([True, False, True]))
        >>> changed.only_first.tolist(), changed.only_second.tolist()
        ([1], [2])
    """
    _check_same_images(first, second)
    return Discordant(np.flatnonzero((first == 1) & (second == 0)), np.flatnonzero((first == 0) & (second == 1)))


def compare_scores(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> PairedComparison:
    """Compares the means of a value of each image, such as right or wrong, or a loss.

    Images whose value is NaN for one of the models, such as those without a known tag, are left out.

    Args:
        first, second: bool or float `(num_images,)`. If all are 0 or 1, the p-value is McNemar's, else the bootstrap's.
        seed: of the resamples.

    Raises:
        ValueError: the models were evaluated on different numbers of images.
    """
    _check_same_images(first, second)
    is_valid = ~(np.isnan(first.astype(np.float64)) | np.isnan(second.astype(np.float64)))
    first, second = first[is_valid].astype(np.float64), second[is_valid].astype(np.float64)
    change = second - first
    num_images = len(change)
    if not num_images:
        return _UNDEFINED
    comparison = _by_bootstrap(float(change.mean()), lambda counts: counts @ change / num_images, num_images, seed)
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        return comparison
    counts = agreement(first > 0, second > 0)
    p_value = mcnemar(counts.only_first, counts.only_second)
    return PairedComparison(
        comparison.difference, comparison.low, comparison.high, p_value, "McNemar", num_images, counts
    )


def compare_statistic(
    first: Callable[[np.ndarray], np.ndarray],
    second: Callable[[np.ndarray], np.ndarray],
    num_images: int,
    *,
    seed: int = 0,
) -> PairedComparison:
    """Compares any metric, computed on the same resamples of the images for both models.

    Args:
        first, second: compute the metric of each model, float `(b,)`, from int32 `(b, num_images)`, how often each
            image is drawn in each of `b` resamples, as for `bootstrap_interval`.
        num_images: number of images.
        seed: of the resamples.

    Example:
        >>> from model_trainer.metrics.paired import compare_statistic
        >>> true, a, b = np.arange(100) < 50, np.arange(100) < 60, np.arange(100) < 52
        >>> def precision(predicted):
        ...     return lambda counts: (counts @ (predicted & true)) / (counts @ predicted)
        >>> round(compare_statistic(precision(a), precision(b), 100).difference, 3)
        0.128
    """
    once = np.ones((1, num_images), np.int32)
    difference = float(second(once)[0] - first(once)[0]) if num_images else float("nan")
    return _by_bootstrap(difference, lambda counts: second(counts) - first(counts), num_images, seed)


def _check_same_images(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            "Expected the values of the same images, two arrays of the shape (num_images,), "
            f"but received the shapes {first.shape} and {second.shape}. Evaluate both models on the same data."
        )


def _by_bootstrap(
    difference: float, statistic: Callable[[np.ndarray], np.ndarray], num_images: int, seed: int
) -> PairedComparison:
    if not num_images:
        return _UNDEFINED
    blocks: list[np.ndarray] = []

    def collect(counts: np.ndarray) -> np.ndarray:
        blocks.append(np.asarray(statistic(counts), np.float64))
        return blocks[-1]

    low, high = bootstrap_interval(collect, num_images, seed=seed)
    resampled = np.concatenate(blocks)
    p_value = _p_value(resampled[~np.isnan(resampled)], num_images)
    return PairedComparison(difference, float(low), float(high), p_value, "bootstrap", num_images)


def _p_value(resampled: np.ndarray, num_images: int) -> float:
    """Twice the fraction of the resamples on the other side of 0, at most 1.

    The observed difference counts as one of them on either side, so that the p-value is never 0. Nor is it below the
    smallest one of an exact test: by chance, all n images favor the same model with the probability 2 / 2^n. The
    bootstrap alone could give less, because every resample of a single image is that image.
    """
    at_most, at_least = (resampled <= 0).sum(), (resampled >= 0).sum()
    bootstrap_p_value = 2.0 * (1 + min(at_most, at_least)) / (1 + len(resampled))
    return float(min(1.0, max(bootstrap_p_value, 2.0 ** (1 - num_images))))
