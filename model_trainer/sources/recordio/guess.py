"""Tells from the numbers of all records what they mean, and says so in one line."""

from __future__ import annotations

from typing import Literal

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.recordio.label_floats import LabelFloats

__all__ = ["guess_meaning", "looks_like_boxes"]


def guess_meaning(
    floats: LabelFloats, classes: tuple[str, ...] | None, origin: str
) -> Literal["single", "multi_hot", "indices"]:
    """What the numbers mean.

    One number each is a class; as many numbers in each record as there are classes, all from 0 to 1 or -1, are
    multi-hot rows; anything else is class numbers.

    Raises:
        DataError: they look like boxes.
    """
    widths, values = floats.widths, floats.entries.values
    if np.all(widths == 1):
        # With one class a class number says nothing, but 0 or 1 does.
        if classes is not None and len(classes) == 1 and len(values):
            logging.info("%s: each record carries one number; read as a multi-hot row of one class.", origin)
            return "multi_hot"
        logging.info("%s: each record carries one number; read as its class, labels='single'.", origin)
        return "single"
    width = int(widths[0])
    as_many = bool(np.all(widths == width)) and (classes is None or len(classes) == width)
    if as_many and np.all((values == -1) | ((values >= 0) & (values <= 1))):
        _say_multi_hot(floats, origin)
        return "multi_hot"
    if looks_like_boxes(floats):
        raise DataError(
            f"{origin}: all labels look like MXNet's boxes for detection, which RecordIO does not read. "
            "Say labels='indices' if they are class numbers all the same."
        )
    logging.info(
        "%s: the records carry %d to %d numbers; read as class numbers, labels='indices'.",
        origin,
        widths.min(),
        widths.max(),
    )
    return "indices"


def looks_like_boxes(floats: LabelFloats) -> bool:
    """Whether each record begins with the length of its header, 2 or more, and that of its boxes, 5 or more, and
    holds as many numbers as a header and some boxes need."""
    starts, columns, values = floats.entries.starts, floats.entries.classes, floats.entries.values
    if np.any(floats.widths < 7) or np.any(np.diff(starts) < 2):
        return False
    first, second = starts[:-1], starts[:-1] + 1
    if np.any(columns[first] != 0) or np.any(columns[second] != 1):
        return False
    header, box = values[first], values[second]
    sound = (header >= 2) & (header == np.floor(header)) & (box >= 5) & (box == np.floor(box))
    return bool(np.all(sound) and np.all((floats.widths > header) & ((floats.widths - header) % box == 0)))


def _say_multi_hot(floats: LabelFloats, origin: str) -> None:
    values, rows = floats.entries.values, floats.entries.row_of_entry()
    ones = np.bincount(rows[values == 1], minlength=len(floats))
    zeros = floats.widths - np.diff(floats.entries.starts)
    whole = bool(np.all((values == 1) | (values == -1)))
    text = "%s: each record carries %d numbers from 0 to 1, or -1; read as multi-hot rows, labels='multi_hot'."
    if whole and ones.max() <= 1 and zeros.max() <= 1:
        # No row names a class twice, so nothing speaks against class numbers.
        logging.warning(
            text + " They may as well be class numbers: then say labels='indices'.", origin, floats.widths[0]
        )
        return
    logging.info(text, origin, floats.widths[0])
