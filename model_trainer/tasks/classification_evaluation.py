"""Metrics of a classifier on labelled images, computed with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from model_trainer.tasks.evaluation import Evaluation

__all__ = ["ClassificationEvaluation", "evaluate_classes"]


@dataclass(frozen=True)
class ClassificationEvaluation(Evaluation):
    """The metrics of a classifier on some data.

    Attributes:
        num_images, num_bad: number of images that could be read, and that could not.
        loss: cross-entropy in nats, the mean over images.
        accuracy: fraction of the images whose predicted class is right.
        sensitivity: macro-averaged recall, over the classes that occur.
        top_5_accuracy: None with fewer than 6 classes.
        classes: names of the classes.
        precision, recall, f1: float `(num_classes,)`.
        support: int `(num_classes,)`, number of images of each class.
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
        return ["class", "images", "precision", "recall", "f1", "most often confused with"], [
            [
                name,
                str(self.support[index]),
                *(f"{metric[index]:.3f}" for metric in (self.precision, self.recall, self.f1)),
                self._most_confused_with(index),
            ]
            for index, name in enumerate(self.classes)
        ]

    def _most_confused_with(self, index: int) -> str:
        errors = self.confusion[index].copy()
        errors[index] = 0
        other = int(errors.argmax())
        return f"{self.classes[other]} ({errors[other]})" if errors[other] else ""


def evaluate_classes(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], num_bad: int = 0
) -> ClassificationEvaluation:
    """Computes the metrics of a classifier.

    Args:
        labels: int `(num_images,)`, index of each image's class.
        probabilities: float `(num_images, num_classes)`.
        classes: names of the classes.
        num_bad: number of images that could not be read.
    """
    class_indices = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=class_indices, zero_division=0.0
    )
    top_5 = None
    if len(classes) > 5:
        top_5 = float(metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=class_indices))
    true_class_probabilities = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)
    return ClassificationEvaluation(
        num_images=len(labels),
        num_bad=num_bad,
        loss=float(-np.log(true_class_probabilities).mean()),
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        sensitivity=float(recall[support > 0].mean()),
        top_5_accuracy=top_5,
        classes=classes,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=metrics.confusion_matrix(labels, predicted, labels=class_indices),
    )
