"""Labels in words, for people."""

from __future__ import annotations

import numpy as np

__all__ = ["label_text"]


def label_text(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """Such as "dog", "blue, bold" or "cat 0.70, dog 0.30"; an unknown tag as "red?".

    Args:
        target: float `(num_classes,)`, as `LabelRows.dense` gives it: NaN is unknown.
    """
    words = [f"{classes[index]}?" for index in np.flatnonzero(np.isnan(target))]
    present = [index for index in np.argsort(-np.nan_to_num(target), kind="stable") if target[index] > 0.005]
    known = [classes[i] if target[i] > 0.995 else f"{classes[i]} {target[i]:.2f}" for i in present]
    return ", ".join(known + words) or "no label"
