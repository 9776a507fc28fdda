"""Figures of a classifier on labelled images, by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from model_trainer.models.load import TrainedModel
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.sources.examples import Examples

__all__ = ["Evaluation", "classification_figures", "evaluate_model"]


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


def evaluate_model(trained: TrainedModel, examples: Examples, batch_size: int = 32) -> Evaluation:
    """Runs the model over the examples, by the pipeline that validation uses, and computes the figures.

    Raises:
        DataError: no image could be read, or the examples have other classes than the model.
    """
    examples = examples.with_classes(trained.classes)
    bad_images = BadImages(max_count=len(examples) - 1, max_share=0.0, num_examples=len(examples))
    pipeline = Pipeline(examples, trained.spec, batch_size, bad_images)
    probabilities, labels = [], []
    for images, of_images, weights in pipeline.validation().as_numpy_iterator():
        readable = weights > 0
        if readable.any():
            probabilities.append(trained.probabilities(images[readable]))
            labels.append(of_images[readable])
    bad_images.check()
    return classification_figures(
        np.concatenate(labels), np.concatenate(probabilities), trained.classes, num_bad=len(bad_images)
    )


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
