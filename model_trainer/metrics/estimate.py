"""A metric together with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Estimate", "finite_or_none"]


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % confidence interval.

    Attributes:
        value: NaN if it is undefined, such as the recall of a class without images.
        low, high: the interval; None for a metric without one.

    Example:
        >>> from model_trainer.metrics.estimate import Estimate
        >>> str(Estimate(0.9124, 0.887, 0.9341)), str(Estimate(0.5))
        ('0.9124 (0.8870 to 0.9341)', '0.5000')
    """

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Returns `{"value": ..., "low": ..., "high": ...}`; what is undefined or infinite becomes None."""
        return {"value": finite_or_none(self.value), "low": finite_or_none(self.low), "high": finite_or_none(self.high)}

    def __str__(self) -> str:
        if self.low is None or self.high is None or math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.4f}"
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def finite_or_none(value: float | None) -> float | None:
    """Returns a number that strict JSON has; None for NaN and infinity, which it lacks."""
    return None if value is None or not math.isfinite(value) else float(value)
