"""Recognizes MXNet's detection labels, which RecordIO does not read."""

from __future__ import annotations

import numpy as np

from model_trainer.sources.labels.number_rows import NumberRows

__all__ = ["looks_like_boxes"]


def looks_like_boxes(rows: NumberRows) -> bool:
    """Whether all rows look like MXNet's detection labels.

    Each row then starts with the length of its header, at least 2, and of a box, at least 5, and contains a header and
    a whole number of boxes of these lengths.
    """
    starts, columns, values = rows.entries.starts, rows.entries.classes, rows.entries.values
    if not len(values) or values[0] < 2:  # excludes most files, and costs nothing
        return False
    if np.any(rows.widths < 7) or np.any(np.diff(starts) < 2):
        return False
    first, second = starts[:-1], starts[:-1] + 1
    if np.any(columns[first] != 0) or np.any(columns[second] != 1):
        return False
    header, box = values[first], values[second]
    is_valid = (header >= 2) & (header == np.floor(header)) & (box >= 5) & (box == np.floor(box))
    return bool(np.all(is_valid) and np.all((rows.widths > header) & ((rows.widths - header) % box == 0)))
