from __future__ import annotations

import numpy as np
import pytest

from model_trainer import Classification, MacroRecall, MultiLabel
from model_trainer.sources.examples import Examples


def test_the_majority_baseline_counts_weights() -> None:
    labels = np.repeat(np.arange(3), (28, 27, 20))
    table = Examples.of_files([f"{number}.jpg" for number in range(75)], labels, ("a", "b", "c"), "data/train")
    assert Classification().majority_baseline(table) == (pytest.approx(28 / 75), "a")
    table.weights[28:55] = 3.0
    assert Classification().majority_baseline(table) == (pytest.approx(81 / 129), "b")
    assert Classification(metrics=(MacroRecall(),)).majority_baseline(table) is None
    assert MultiLabel().majority_baseline(table) is None
