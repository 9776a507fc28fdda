"""Multi-hot labels: one number per class, 1 for present, 0 for absent, -1 for unknown; fractions are soft labels."""

from __future__ import annotations

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.classes import no_labels, numbered_classes
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.number_rows import NumberRows

__all__ = ["VALID_MULTI_HOT", "fits_multi_hot", "interpret_multi_hot", "log_multi_hot"]

VALID_MULTI_HOT = "a multi-hot row holds 0 and 1, {unknown} for unknown, or something between 0 and 1."
_CURE = "Set labels='indices' if they are class indices."


def fits_multi_hot(widths: np.ndarray, values: np.ndarray, class_names: tuple[str, ...] | None) -> bool:
    """Whether rows can be multi-hot: equal widths of at least 2, one number per class, and only valid numbers.

    Args:
        widths: int `(num_rows,)`, numbers in each row.
        values: all numbers, or the distinct ones; zeros may be missing.
        class_names: the class list, if declared.
    """
    width = int(widths.max(initial=0))
    return (
        width > 1
        and bool(np.all(widths == width))
        and (class_names is None or len(class_names) == width)
        and bool(np.all(_are_multi_hot_values(values)))
    )


def interpret_multi_hot(
    rows: NumberRows, class_names: tuple[str, ...] | None, where: LabelLocation
) -> tuple[LabelRows, tuple[str, ...]]:
    """The labels of multi-hot rows, and the class list.

    Raises:
        DataError: rows have different widths, or not that of the class list, or contain an invalid number; the message
            names the row.
    """
    width = int(rows.widths[0]) if class_names is None else len(class_names)
    if class_names is None and not rows.widths.any():
        raise no_labels(where.origin)
    other_widths = np.flatnonzero(rows.widths != width)
    if len(other_widths):
        which = "the first row has" if class_names is None else "the class list has"
        raise DataError(
            f"{where.labels_of(int(other_widths[0]))} has {rows.widths[other_widths[0]]} numbers, {which} {width}; "
            f"a multi-hot row has a number for each class. {_CURE}"
        )
    values = rows.entries.values
    wrong = np.flatnonzero(~_are_multi_hot_values(values))
    if len(wrong):
        raise DataError(
            f"{where.labels_of(rows.row_of(wrong[0]))} has {values[wrong[0]]:g} at position "
            f"{rows.entries.classes[wrong[0]]}; {VALID_MULTI_HOT.format(unknown=-1)} {_CURE}"
        )
    values_or_nan = np.where(values == -1, np.float32(np.nan), values)
    return LabelRows(rows.entries.starts, rows.entries.classes, values_or_nan), class_names or numbered_classes(width)


def log_multi_hot(rows: NumberRows, where: LabelLocation) -> None:
    """Logs that rows are read as multi-hot; a warning if they could also be class indices."""
    values, row_of_entry = rows.entries.values, rows.entries.row_of_entry()
    ones = np.bincount(row_of_entry[values == 1], minlength=len(rows))
    zeros = rows.widths - np.diff(rows.entries.starts)
    all_integers = bool(np.all((values == 1) | (values == -1)))
    # If no row would contain a class twice, they could be class indices as well.
    ambiguous = all_integers and ones.max() <= 1 and zeros.max() <= 1
    logging.log(
        logging.WARNING if ambiguous else logging.INFO,
        "%s holds %d numbers in each row; read as multi-hot rows, labels='multi_hot'. %s",
        *(where.all_labels, rows.widths[0]),
        "They could also be class indices; in that case set labels='indices'." if ambiguous else _CURE,
    )


def _are_multi_hot_values(values: np.ndarray) -> np.ndarray:
    return (values == -1) | ((values >= 0) & (values <= 1))
