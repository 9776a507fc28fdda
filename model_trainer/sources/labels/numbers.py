"""Rows of numbers as labels: one class each, a multi-hot row, or class indices."""

from __future__ import annotations

from typing import Literal

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.classes import index_numbers
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.multi_hot import fits_multi_hot, interpret_multi_hot, log_multi_hot
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.labels.tags import tag_rows

__all__ = ["NumbersAs", "interpret_numbers"]

NumbersAs = Literal["auto", "single", "multi_hot", "indices"]


def interpret_numbers(
    rows: NumberRows, numbers_as: NumbersAs, class_names: tuple[str, ...] | None, where: LabelLocation
) -> LabelsAndClasses:
    """`(labels, classes)`: int32 `(num_rows,)` or rows of tags, and the class list.

    Args:
        rows: the numbers.
        numbers_as: their meaning: "single", the class of the image; "multi_hot"; "indices", the classes of the image,
            -1 for none; "auto" infers it from the numbers of all rows, and logs one line.
        class_names: the class list; None means "0" to the maximum.
        where: for messages.

    Raises:
        DataError: a number is invalid or not a class; the message names the row.
    """
    meaning = _meaning(rows, class_names, where) if numbers_as == "auto" else numbers_as
    if meaning == "single":
        return _single(rows, class_names, where)
    one_each = bool(np.all(rows.widths == 1))
    if meaning == "multi_hot" and (not one_each or (class_names is not None and len(class_names) == 1)):
        return interpret_multi_hot(rows, class_names, where)
    return _indices(rows, class_names, where)


def _meaning(
    rows: NumberRows, class_names: tuple[str, ...] | None, where: LabelLocation
) -> Literal["single", "multi_hot", "indices"]:
    """Infers the meaning: single numbers are classes, rows that fit are multi-hot, others are class indices."""
    widths = rows.widths
    if np.all(widths == 1):
        # With a single class, a class index would contain no information, but 0 or 1 does.
        if class_names is not None and len(class_names) == 1 and len(rows.entries.values):
            logging.info("%s: each record contains one number; read as a multi-hot row of one class.", where.origin)
            return "multi_hot"
        logging.info("%s: each record contains one number; read as its class, labels='single'.", where.origin)
        return "single"
    if fits_multi_hot(widths, rows.entries.values, class_names):
        log_multi_hot(rows, where)
        return "multi_hot"
    logging.info(
        "%s: the records carry %d to %d numbers; read as class indices, labels='indices'.",
        *(where.origin, widths.min(), widths.max()),
    )
    return "indices"


def _single(rows: NumberRows, class_names: tuple[str, ...] | None, where: LabelLocation) -> LabelsAndClasses:
    other_widths = np.flatnonzero(rows.widths != 1)
    if len(other_widths):
        row = int(other_widths[0])
        raise DataError(
            f"{where.row(row)} carries {rows.widths[row]} labels, one was expected. "
            "Set labels='multi_hot' or labels='indices'."
        )
    numbers = np.zeros(len(rows), np.float32)
    numbers[rows.entries.row_of_entry()] = rows.entries.values
    return index_numbers(numbers, class_names, where)


def _indices(rows: NumberRows, class_names: tuple[str, ...] | None, where: LabelLocation) -> LabelsAndClasses:
    entries = rows.entries
    is_class = entries.values != -1  # -1 pads rows to equal length, as MXNet's iterators need
    # Zeros are not among the entries: a row with more numbers than entries contains class 0.
    rows_with_zero = np.flatnonzero(rows.widths > np.diff(entries.starts))
    keys = np.concatenate([rows_with_zero, entries.row_of_entry()[is_class]])
    indices, classes = index_numbers(
        np.concatenate([np.zeros(len(rows_with_zero), np.float32), entries.values[is_class]]),
        class_names,
        where.at(keys),
    )
    keys *= len(classes)  # now a key for each tag
    keys += indices
    return tag_rows(keys, len(rows), len(classes)), classes
