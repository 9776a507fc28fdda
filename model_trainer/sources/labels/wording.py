"""Formats labels for display."""

from __future__ import annotations

import numpy as np

__all__ = ["label_text"]


def label_text(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """Formats a label, such as "dog", "blue, bold" or "cat 0.70, dog 0.30"; an unknown tag has a question mark.

    Args:
        target: float `(num_classes,)`, a row of `LabelRows.dense`; NaN is unknown.
    """
    unknown = [f"{classes[index]}?" for index in np.flatnonzero(np.isnan(target))]
    present = [index for index in np.argsort(-np.nan_to_num(target), kind="stable") if target[index] > 0.005]
    shown = [classes[i] if target[i] > 0.995 else f"{classes[i]} {target[i]:.2f}" for i in present]
    return ", ".join(shown + unknown) or "no label"
