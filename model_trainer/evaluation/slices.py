"""Metrics of slices: subsets of the data with the same value in a column, or of the same coarser class."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_trainer.errors import DataError, StorageError
from model_trainer.messages import nearest
from model_trainer.storage import files
from model_trainer.tasks.evaluation import Evaluation

__all__ = ["coarse_labels", "read_mapping", "slice_metrics"]

MAX_VALUES = 1000  # of a column; the rest are left out
MAX_DISTINCT_NUMBERS = 20  # of a column; one with more is divided at its quartiles
EMPTY = "(empty)"


def slice_metrics(evaluation: Evaluation, values: Sequence[str], by: str) -> dict[str, Any]:
    """Computes the headline metrics for each value of a column, the worst first.

    A column of many different numbers is divided at its quartiles instead.

    Args:
        evaluation: of all images.
        values: the value of each image.
        by: what the values are, such as the name of the column.

    Returns:
        An entry of "slices" in `evaluation.json`.
    """
    names, index_of = _groups(values)
    main = next(iter(evaluation.estimates()), "")
    rows = np.argsort(index_of, kind="stable")
    bounds = np.searchsorted(index_of[rows], np.arange(len(names) + 1))
    entries = []
    for number, name in enumerate(names):
        members = np.sort(rows[bounds[number] : bounds[number + 1]])
        metrics = evaluation.subset(members)
        value = metrics[main].value if main in metrics else math.nan
        metrics_dict = {metric: estimate.to_dict() for metric, estimate in metrics.items()}
        entries.append((value, {"value": str(name), "images": len(members), "metrics": metrics_dict}))
    entries.sort(key=lambda entry: (math.isnan(entry[0]), entry[0], entry[1]["value"]))
    return {"by": by, "values": [entry for _, entry in entries[:MAX_VALUES]], "num_values": len(entries)}


def _groups(values: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The groups of images: their names, and int `(num_images,)`, the group of each image.

    Many different numbers are grouped by quartile; a number that more than a quarter of the images have is a group of
    its own.
    """
    texts, index_of = np.unique(np.array([value or EMPTY for value in values], object), return_inverse=True)
    names = [str(text) for text in texts]
    try:
        numbers = np.array([float(name) if name != EMPTY else math.nan for name in names])
    except ValueError:
        return names, index_of
    each = numbers[index_of]
    is_number = np.isfinite(each)
    distinct, counts = np.unique(each[is_number], return_counts=True)
    if len(distinct) <= MAX_DISTINCT_NUMBERS:
        return names, index_of
    frequent = distinct[counts > is_number.sum() / 4]
    groups = np.full(len(each), -1)
    labels: list[str] = []
    for number in frequent:
        groups[each == number] = len(labels)
        labels.append(_number_text([number])[0])
    rest = is_number & (groups < 0)
    edges = np.unique(np.quantile(each[rest], [0, 0.25, 0.5, 0.75, 1], method="lower"))
    bins = np.clip(np.searchsorted(edges, each[rest], side="right") - 1, 0, max(len(edges) - 2, 0))
    groups[rest] = bins + len(labels)
    edge_texts = _number_text(edges)
    labels += [f"{low} to {high}" for low, high in itertools.pairwise(edge_texts)] or edge_texts
    if not is_number.all():
        groups[~is_number] = len(labels)
        labels.append(EMPTY)
    return labels, groups


def _number_text(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Numbers as text, with as few digits as distinguish them, but at least 4."""
    texts: list[str] = []
    for digits in range(4, 18):
        texts = [f"{number:.0f}" if number == round(number) else f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(texts):
            break
    return texts


def read_mapping(path: str, classes: Sequence[str]) -> dict[str, str]:
    """Reads which coarser class each class belongs to, from JSON or a CSV with two columns, `class,coarse`.

    Returns:
        The coarser class of each of `classes`, in their order.

    Raises:
        DataError: the file is missing or damaged, or it lacks a class.
    """
    try:
        text = files.read_text(path, "utf-8-sig")
        mapping = dict(_pairs(text, path))
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except StorageError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f'{path} could not be read: {error}. Expected JSON such as {{"beagle": "dog"}}.') from error
    missing = [name for name in classes if name not in mapping]
    if missing:
        raise DataError(
            f"{path} has no coarse class for {missing[0]!r}{f' and {len(missing) - 1} more' if missing[1:] else ''}."
            f"{nearest(missing[0], mapping)} Each class of the model needs one."
        )
    return {name: mapping[name] for name in classes}


def _pairs(text: str, path: str) -> list[tuple[str, str]]:
    if path.lower().endswith(".json"):
        content = json.loads(text)
        if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
            raise ValueError("it is not an object of class names")
        return list(content.items())
    rows = [row for row in csv.reader(io.StringIO(text), strict=True) if any(row)]
    if any(len(row) != 2 for row in rows):
        raise ValueError("a line does not have two columns, the class and its coarser class")
    return [(row[0], row[1]) for row in rows]


def coarse_labels(
    labels: np.ndarray, probabilities: np.ndarray, mapping: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Converts labels and predictions to coarser classes, by adding the probabilities of the classes of each.

    Args:
        labels: int `(num_images,)`, class indices.
        probabilities: float32 `(num_images, num_classes)`.
        mapping: the coarser class of each class, in the order of the model's classes.

    Returns:
        `(labels, probabilities, classes)` of the coarser classes, sorted by name.
    """
    classes = tuple(sorted(set(mapping.values())))
    new_index = np.array([classes.index(coarse) for coarse in mapping.values()])
    sums = np.zeros((len(mapping), len(classes)), np.float32)
    sums[np.arange(len(mapping)), new_index] = 1.0
    step = max(1, (64 << 20) // (4 * len(mapping)))
    chunks = [probabilities[start : start + step] @ sums for start in range(0, len(probabilities), step)]
    return new_index[labels], np.concatenate([np.zeros((0, len(classes)), np.float32), *chunks]), classes
