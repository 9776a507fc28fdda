"""Rows of numbers as labels: one class each, a multi-hot row, or class numbers."""

from __future__ import annotations

from typing import Literal

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.classes import index_numbers
from model_trainer.sources.labels.kinds import Interpreted
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.multi_hot import fits_multi_hot, interpret_multi_hot, log_multi_hot
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.labels.tags import tag_rows

__all__ = ["NumbersAs", "interpret_numbers"]

NumbersAs = Literal["auto", "single", "multi_hot", "indices"]


def interpret_numbers(
    rows: NumberRows, numbers_as: NumbersAs, given: tuple[str, ...] | None, where: LabelLocation
) -> Interpreted:
    """`(labels, classes)`: int32 `(num_rows,)` or rows of tags, and the class list.

    Args:
        numbers_as: what the numbers are: "single" the class of an image; "multi_hot"; "indices" classes that it has,
            or -1 for none; "auto" tells it from the numbers of all rows, and says so in one line.
        given: the class list; None makes "0" to the largest.

    Raises:
        DataError: a number is none of what it should be, or has no class; names the row.
    """
    meaning = _meaning(rows, given, where) if numbers_as == "auto" else numbers_as
    if meaning == "single":
        return _single(rows, given, where)
    one_each = bool(np.all(rows.widths == 1))
    if meaning == "multi_hot" and (not one_each or (given is not None and len(given) == 1)):
        return interpret_multi_hot(rows, given, where)
    return _indices(rows, given, where)


def _meaning(
    rows: NumberRows, given: tuple[str, ...] | None, where: LabelLocation
) -> Literal["single", "multi_hot", "indices"]:
    """One number each is a class; what fits multi-hot rows is that; anything else is class numbers."""
    widths = rows.widths
    if np.all(widths == 1):
        # With one class a class number says nothing, but 0 or 1 does.
        if given is not None and len(given) == 1 and len(rows.entries.values):
            logging.info("%s: each record carries one number; read as a multi-hot row of one class.", where.origin)
            return "multi_hot"
        logging.info("%s: each record carries one number; read as its class, labels='single'.", where.origin)
        return "single"
    if fits_multi_hot(widths, rows.entries.values, given):
        log_multi_hot(rows, where)
        return "multi_hot"
    logging.info(
        "%s: the records carry %d to %d numbers; read as class numbers, labels='indices'.",
        *(where.origin, widths.min(), widths.max()),
    )
    return "indices"


def _single(rows: NumberRows, given: tuple[str, ...] | None, where: LabelLocation) -> Interpreted:
    several = np.flatnonzero(rows.widths != 1)
    if len(several):
        row = int(several[0])
        raise DataError(
            f"{where.row(row)} carries {rows.widths[row]} labels, one was expected. "
            "Say labels='multi_hot' or labels='indices'."
        )
    numbers = np.zeros(len(rows), np.float32)
    numbers[rows.entries.row_of_entry()] = rows.entries.values
    return index_numbers(numbers, given, where)


def _indices(rows: NumberRows, given: tuple[str, ...] | None, where: LabelLocation) -> Interpreted:
    entries = rows.entries
    named = entries.values != -1  # -1 fills rows up to one length, as MXNet's iterators want them
    # Zeros are not among the entries: a row that is wider than its entries names class 0.
    of_zero = np.flatnonzero(rows.widths > np.diff(entries.starts))
    of_row = np.concatenate([of_zero, entries.row_of_entry()[named]])
    indices, classes = index_numbers(
        np.concatenate([np.zeros(len(of_zero), np.float32), entries.values[named]]), given, where.at(of_row)
    )
    of_row *= len(classes)  # now a key for each tag
    of_row += indices
    return tag_rows(of_row, len(rows), len(classes)), classes
