from __future__ import annotations

import math

from model_trainer.metrics.estimate import Estimate


def test_an_estimate_as_strict_json_has_neither_nan_nor_infinity() -> None:
    assert Estimate(math.nan, -math.inf, 0.5).to_dict() == {"value": None, "low": None, "high": 0.5}


def test_an_estimate_without_an_interval_prints_its_value_alone() -> None:
    assert str(Estimate(0.25)) == "0.2500"
    assert str(Estimate(0.25, math.nan, math.nan)) == "0.2500"


def test_an_estimate_prints_its_interval() -> None:
    assert str(Estimate(0.25, 0.125, 0.375)) == "0.2500 (0.1250 to 0.3750)"
