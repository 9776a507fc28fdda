"""Types of fields that declare the minimum and the maximum of a random number."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator

from model_trainer.errors import ConfigError

__all__ = ["FractionRange", "PositiveRange"]


def _from_min_to_max(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1] < math.inf:
        raise ConfigError(f"should be two numbers above 0, the smaller first, got {list(limits)}.")
    return limits


def _at_most_1(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[1] > 1:
        raise ConfigError(f"should be fractions of the image, at most 1, got {list(limits)}.")
    return limits


PositiveRange = Annotated[tuple[float, float], AfterValidator(_from_min_to_max)]
FractionRange = Annotated[PositiveRange, AfterValidator(_at_most_1)]
