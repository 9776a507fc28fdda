"""Figures of a classifier on labelled images, by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from model_trainer.tasks.evaluation import Evaluation

__all__ = ["ClassificationEvaluation", "evaluate_classes"]


@dataclass(frozen=True)
class ClassificationEvaluation(Evaluation):
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

    def metrics(self) -> dict[str, str]:
        metrics = {"images": f"{self.num_images:,}", "loss": f"{self.loss:.4f}"}
        if self.num_bad:
            metrics["unreadable"] = f"{self.num_bad:,}"
        metrics |= {"accuracy": f"{self.accuracy:.4f}", "sensitivity": f"{self.sensitivity:.4f}"}
        if self.top_5_accuracy is not None:
            metrics["top_5_accuracy"] = f"{self.top_5_accuracy:.4f}"
        return metrics

    def table(self) -> tuple[list[str], list[list[str]]]:
        return ["class", "images", "precision", "recall", "f1", "most often taken for"], [
            [
                name,
                str(self.support[index]),
                *(f"{figure[index]:.3f}" for figure in (self.precision, self.recall, self.f1)),
                self._most_confused_with(index),
            ]
            for index, name in enumerate(self.classes)
        ]

    def _most_confused_with(self, index: int) -> str:
        confused = self.confusion[index].copy()
        confused[index] = 0
        worst = int(confused.argmax())
        return f"{self.classes[worst]} ({confused[worst]})" if confused[worst] else ""


def evaluate_classes(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], num_bad: int = 0
) -> ClassificationEvaluation:
    """The metrics.

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
    return ClassificationEvaluation(
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
