"""The kinds of labels that examples can have.

To add another kind, such as boxes or group ids, start here: a type in `Labels`, a name in `LabelKind`, and a branch in
each function. It also needs a reader in `pipeline/labels.py`, and a task that uses it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from model_trainer.sources.label_rows import LabelRows

__all__ = [
    "LabelKind",
    "Labels",
    "LabelsAndClasses",
    "count_classes",
    "kind_of",
    "remap_labels",
    "rows_of",
    "take_labels",
]

Labels = np.ndarray | LabelRows  # int32 `(num_examples,)` if each example has one class
LabelsAndClasses = tuple[Labels, tuple[str, ...]]  # labels, and the class list that they are indices of
LabelKind = Literal["single", "probabilities", "tags"]


def kind_of(labels: Labels) -> LabelKind:
    """The kind of `labels`: one class each, a probability for each class, or any number of tags."""
    if not isinstance(labels, LabelRows):
        return "single"
    return "probabilities" if labels.exclusive else "tags"


def rows_of(labels: Labels) -> LabelRows:
    """The labels as sparse rows, whatever their kind."""
    return labels if isinstance(labels, LabelRows) else LabelRows.of_single(labels, exclusive=True)


def take_labels(labels: Labels, indices: np.ndarray) -> Labels:
    """The labels of the examples at `indices`, in that order."""
    return labels.take(indices) if isinstance(labels, LabelRows) else labels[indices]


def remap_labels(labels: Labels, position: np.ndarray) -> Labels:
    """The same labels in another class list; `position` maps each class to its new index, -1 drops it.

    A single label that is dropped becomes -1.
    """
    return labels.moved(position) if isinstance(labels, LabelRows) else position[labels]


def count_classes(labels: Labels, num_classes: int) -> np.ndarray:
    """int64 `(num_classes,)`: examples of each class; with probabilities the most likely class counts."""
    if isinstance(labels, LabelRows):
        return labels.counts(num_classes)
    return np.bincount(labels, minlength=num_classes)
