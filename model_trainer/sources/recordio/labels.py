"""The labels of MXNet's records and lists: rows of numbers, with warnings about common mistakes in packing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.labels.numbers import NumbersAs, interpret_numbers
from model_trainer.sources.recordio.boxes import looks_like_boxes

__all__ = ["make_labels"]

_ARE_BOXES = "look like MXNet's boxes for detection, which RecordIO does not read."


def make_labels(
    rows: NumberRows, labels_as: NumbersAs, classes: tuple[str, ...] | None, where: LabelLocation
) -> LabelsAndClasses:
    """Interprets the rows with `interpret_numbers`; messages give hints that fit RecordIO.

    Raises:
        DataError: a number is invalid or not a class, and the message names the record; or the labels look like boxes.
    """
    are_boxes = looks_like_boxes(rows)
    if are_boxes and labels_as == "auto":
        raise DataError(
            f"{where.origin}: all labels {_ARE_BOXES} Set labels='indices' if they are class indices nevertheless."
        )
    # With one class, a multi-hot row has one number.
    has_one_class = labels_as == "multi_hot" and classes is not None and len(classes) == 1
    if labels_as in ("multi_hot", "indices") and not has_one_class and np.all(rows.widths == 1):
        _warn_of_one_each(labels_as, where.origin)
    cure = "Give the labels by `list`, or pack the file again with class indices."
    range_cure = "Name all of them in `classes`, in the order of their numbers."
    if are_boxes:
        cure = range_cure = f"The labels {_ARE_BOXES}"
    return interpret_numbers(rows, labels_as, classes, replace(where, cure=cure, range_cure=range_cure))


def _warn_of_one_each(labels_as: str, origin: str) -> None:
    logging.warning(
        "%s: labels=%r expects several labels, but each record contains one, which was read as its class index. "
        "Without --pack-label im2rec keeps only the first label of each line: pack the file again with it, or give "
        "the list, list='train.lst', which still has all of them.",
        origin,
        labels_as,
    )
