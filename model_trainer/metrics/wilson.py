"""Wilson's confidence interval of a proportion."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

__all__ = ["wilson_interval"]


def wilson_interval(successes: Any, totals: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Computes the interval of each proportion `successes / totals`; NaN where the total is 0.

    Args:
        successes, totals: numbers or arrays of the same shape, such as hits and images of each class.

    Returns:
        `(low, high)`, float64 of the same shape.

    Example:
        >>> from model_trainer.metrics.wilson import wilson_interval
        >>> low, high = wilson_interval([9, 0], [10, 0])
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.596, nan], [0.982, nan])

    Source: https://doi.org/10.1080/01621459.1927.10502953
    """
    successes, totals = np.asarray(successes, np.float64), np.asarray(totals, np.float64)
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        proportions = successes / totals
        center = (proportions + z**2 / (2.0 * totals)) / (1.0 + z**2 / totals)
        spread = np.sqrt(proportions * (1.0 - proportions) / totals + z**2 / (4.0 * totals**2))
        half = z / (1.0 + z**2 / totals) * spread
        # Without a success or without a failure an end is exactly 0 or 1, which rounding would miss.
        low = np.where(successes == 0, 0.0, np.clip(center - half, 0.0, 1.0))
        high = np.where(successes == totals, 1.0, np.clip(center + half, 0.0, 1.0))
    undefined = totals <= 0
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
