"""Multi-hot rows: a number for each class, 1 has it, 0 has it not, -1 unknown; between them is a soft label."""

from __future__ import annotations

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.classes import no_labels, numbered_classes
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.number_rows import NumberRows

__all__ = ["MULTI_HOT_HOLDS", "fits_multi_hot", "interpret_multi_hot", "log_multi_hot"]

MULTI_HOT_HOLDS = "a multi-hot row holds 0 and 1, {unknown} for unknown, or something between 0 and 1."
_CURE = "Say labels='indices' if they are class numbers."


def fits_multi_hot(widths: np.ndarray, values: np.ndarray, given: tuple[str, ...] | None) -> bool:
    """Whether rows may be multi-hot: 2 numbers or more in each, as many as there are classes, and none that cannot be.

    Args:
        widths: int `(num_rows,)`, how many numbers each row has.
        values: the numbers, or each different one once; zeros may be missing.
        given: the class list, if given.
    """
    width = int(widths.max(initial=0))
    return (
        width > 1
        and bool(np.all(widths == width))
        and (given is None or len(given) == width)
        and bool(np.all(_can_be_in_one(values)))
    )


def interpret_multi_hot(
    rows: NumberRows, given: tuple[str, ...] | None, where: LabelLocation
) -> tuple[LabelRows, tuple[str, ...]]:
    """The labels of multi-hot rows, and the class list.

    Raises:
        DataError: rows have different widths, or not that of the class list, or a number cannot be in one; names
            the row.
    """
    width = int(rows.widths[0]) if given is None else len(given)
    if given is None and not rows.widths.any():
        raise no_labels(where.origin)
    others = np.flatnonzero(rows.widths != width)
    if len(others):
        which = "the first row has" if given is None else "the given classes are"
        raise DataError(
            f"{where.labels_of(int(others[0]))} has {rows.widths[others[0]]} numbers, {which} {width}; "
            f"in a multi-hot row each class has its place. {_CURE}"
        )
    values = rows.entries.values
    wrong = np.flatnonzero(~_can_be_in_one(values))
    if len(wrong):
        raise DataError(
            f"{where.labels_of(rows.row_of(wrong[0]))} has {values[wrong[0]]:g} at place "
            f"{rows.entries.classes[wrong[0]]}; {MULTI_HOT_HOLDS.format(unknown=-1)} {_CURE}"
        )
    known = np.where(values == -1, np.float32(np.nan), values)
    return LabelRows(rows.entries.starts, rows.entries.classes, known), given or numbered_classes(width)


def log_multi_hot(rows: NumberRows, where: LabelLocation) -> None:
    """Says that rows are read as multi-hot; warns where they may as well be class numbers."""
    values, of_row = rows.entries.values, rows.entries.row_of_entry()
    ones = np.bincount(of_row[values == 1], minlength=len(rows))
    zeros = rows.widths - np.diff(rows.entries.starts)
    whole = bool(np.all((values == 1) | (values == -1)))
    # Where no row names a class twice, nothing speaks against class numbers.
    ambiguous = whole and ones.max() <= 1 and zeros.max() <= 1
    logging.log(
        logging.WARNING if ambiguous else logging.INFO,
        "%s holds %d numbers in each row; read as multi-hot rows, labels='multi_hot'. %s",
        *(where.all_labels, rows.widths[0]),
        "They may as well be class numbers: then say labels='indices'." if ambiguous else _CURE,
    )


def _can_be_in_one(values: np.ndarray) -> np.ndarray:
    return (values == -1) | ((values >= 0) & (values <= 1))
