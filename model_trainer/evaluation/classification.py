"""Figures of a classifier on labelled images, by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

__all__ = ["Evaluation", "classification_figures"]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on some data.

    Attributes:
        num_images: that could be read.
        num_bad: that could not.
        loss: cross-entropy in nats, the mean over images.
        accuracy, sensitivity: share of right answers; mean over classes of their recall.
        top_5_accuracy: None with fewer than 6 classes.
        classes: names.
        precision, recall, f1: float `(num_classes,)`.
        support: int `(num_classes,)`, images of each class.
        confusion: int `(num_classes, num_classes)`, rows are true classes, columns predicted ones.
    """

    num_images: int
    num_bad: int
    loss: float
    accuracy: float
    sensitivity: float
    top_5_accuracy: float | None
    classes: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    confusion: np.ndarray


def classification_figures(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], num_bad: int = 0
) -> Evaluation:
    """The figures.

    Args:
        labels: int `(num_images,)`.
        probabilities: float `(num_images, num_classes)`.
    """
    every = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0.0
    )
    top_5 = None
    if len(classes) > 5:
        top_5 = float(metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=every))
    right = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)
    return Evaluation(
        num_images=len(labels),
        num_bad=num_bad,
        loss=float(-np.log(right).mean()),
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        sensitivity=float(recall[support > 0].mean()),
        top_5_accuracy=top_5,
        classes=classes,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=metrics.confusion_matrix(labels, predicted, labels=every),
    )
