"""Metrics of a classifier on labeled images, with their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from model_trainer.metrics.calibration import Calibration, calibrate
from model_trainer.metrics.chunks import Progress
from model_trainer.metrics.classification import ConfusionMatrix, class_metrics, overall_metrics
from model_trainer.metrics.classification_estimates import class_estimates, overall_estimates
from model_trainer.metrics.estimate import Estimate, finite_or_none
from model_trainer.metrics.image_scores import ImageScores, score_images
from model_trainer.metrics.ranking import one_vs_rest
from model_trainer.metrics.ranking_intervals import macro_intervals
from model_trainer.metrics.selective import THRESHOLDS, accuracy_above_thresholds
from model_trainer.metrics.wilson import wilson_interval
from model_trainer.tasks.classification_galleries import galleries_of_classes
from model_trainer.tasks.evaluation import Evaluation, Gallery

__all__ = ["ClassificationEvaluation", "evaluate_classes"]

# The headline, the main metric first: what a terminal shows. `estimates()` has all metrics.
_SHOWN = ("accuracy", "balanced_accuracy", "top_5_accuracy", "macro_f1", "log_loss", "macro_auroc", "ece")
_MAX_MATRIX = 50  # number of classes up to which `to_dict` has the whole confusion matrix


@dataclass(frozen=True, eq=False)
class ClassificationEvaluation(Evaluation):
    """The metrics of a classifier on some data.

    An image without a prediction, because one of its probabilities is NaN or infinite, counts as a mistake; metrics of
    the probabilities themselves, such as the loss, are then NaN.

    Attributes:
        num_images, num_bad: numbers of images that could and could not be read.
        classes: names of the classes.
        labels: int `(num_images,)`, the true class of each image.
        image_scores: prediction, probability, rank and loss of each image.
        confusion_cells: the non-zero cells of the confusion matrix.
        calibration: of the probability of the predicted class, before and after temperature scaling.
        auroc, average_precision: float `(num_classes,)`, of each class against the rest; NaN without images.
        all_metrics: every metric over all images, by name.

    Example:
        >>> from model_trainer.tasks.classification_evaluation import evaluate_classes
        >>> probabilities = np.array([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]], np.float32)
        >>> evaluation = evaluate_classes(np.array([0, 0, 1]), probabilities, ("cat", "dog"))
        >>> print(f"{evaluation.accuracy:.3f}", evaluation.confusion.tolist(), evaluation.estimates()["macro_f1"].low)
        0.667 [[1, 1], [0, 1]] 0.0
    """

    num_images: int
    num_bad: int
    classes: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    image_scores: ImageScores = field(repr=False)
    confusion_cells: ConfusionMatrix = field(repr=False)
    calibration: Calibration = field(repr=False)
    auroc: np.ndarray = field(repr=False)
    average_precision: np.ndarray = field(repr=False)
    all_metrics: dict[str, Estimate]

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose predicted class is right."""
        return self.all_metrics["accuracy"].value

    @property
    def sensitivity(self) -> float:
        """Macro-averaged recall, over the classes that occur: the balanced accuracy."""
        return self.all_metrics["balanced_accuracy"].value

    @property
    def top_5_accuracy(self) -> float | None:
        """Fraction of the images whose class is among the five most probable; None with fewer than 6 classes."""
        return self.all_metrics["top_5_accuracy"].value if "top_5_accuracy" in self.all_metrics else None

    @property
    def loss(self) -> float:
        """Cross-entropy in nats, the mean over images."""
        return self.all_metrics["log_loss"].value

    @property
    def precision(self) -> np.ndarray:
        """Float `(num_classes,)`; 0 for a class that was never predicted."""
        return np.nan_to_num(self._by_class["precision"])

    @property
    def recall(self) -> np.ndarray:
        """Float `(num_classes,)`; 0 for a class without images."""
        return np.nan_to_num(self._by_class["recall"])

    @property
    def f1(self) -> np.ndarray:
        """Float `(num_classes,)`; 0 for a class that neither occurs nor was predicted."""
        return np.nan_to_num(self._by_class["f1"])

    @property
    def support(self) -> np.ndarray:
        """Int `(num_classes,)`, number of images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @property
    def temperature(self) -> float | None:
        return self.calibration.temperature

    @cached_property
    def confusion(self) -> np.ndarray:
        """Int `(num_classes, num_classes)`: rows are true classes, columns predicted ones. Large for many classes."""
        return self.confusion_cells.matrix()

    @cached_property
    def _by_class(self) -> dict[str, np.ndarray]:
        return {name: values[0] for name, values in class_metrics(self.confusion_cells.counts()).items()}

    def estimates(self) -> dict[str, Estimate]:
        return dict(self.all_metrics)

    def metrics(self) -> dict[str, str]:
        lines = {name: str(self.all_metrics[name]) for name in _SHOWN if name in self.all_metrics}
        lines["images"] = f"{self.num_images:,}"
        if self.num_bad:
            lines["unreadable"] = f"{self.num_bad:,}"
        num_missing = int(np.count_nonzero(~self.image_scores.is_finite))
        if num_missing:
            lines["no prediction"] = f"{num_missing:,} (probabilities are NaN or infinite: the model has diverged)"
        return lines

    def table(self) -> tuple[list[str], list[list[str]]]:
        confused = self.confusion_cells.most_confused_with()
        return ["class", "images", "precision", "recall", "f1", "most often confused with"], [
            [
                name,
                str(images),
                *(f"{metric:.3f}" for metric in metrics),
                "" if other is None else f"{self.classes[other[0]]} ({other[1]})",
            ]
            for name, images, *metrics, other in zip(
                self.classes, self.support, self.precision, self.recall, self.f1, confused, strict=True
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        support = self.support
        majority = int(support.argmax())
        return {
            **super().to_dict(),
            "classes": list(self.classes),
            "baselines": {
                "chance": 1.0 / len(self.classes),
                "majority": finite_or_none(support[majority] / self.num_images) if self.num_images else None,
                "majority_class": self.classes[majority],
            },
            "per_class": self._per_class(),
            "confusion": {
                "matrix": self.confusion.tolist() if len(self.classes) <= _MAX_MATRIX else None,
                "largest": [
                    {
                        "true": self.classes[true],
                        "predicted": self.classes[predicted],
                        "images": images,
                        "fraction": images / int(support[true]),
                    }
                    for true, predicted, images in self.confusion_cells.largest(100)
                ],
            },
            "calibration": self.calibration.to_dict(),
            "selective": self._selective(),
        }

    def _per_class(self) -> dict[str, Any]:
        ranking = {"auroc": self.auroc, "average_precision": self.average_precision}
        columns: dict[str, Any] = {"images": self.support.tolist()}
        for name, values in class_estimates(self.confusion_cells.counts()).items():
            columns[name] = {key: [finite_or_none(value) for value in column] for key, column in values.items()}
        return columns | {
            name: {"value": [finite_or_none(value) for value in values]} for name, values in ranking.items()
        }

    def _selective(self) -> list[dict[str, float | None]]:
        coverage, accuracy = accuracy_above_thresholds(self.image_scores.probability, self._correct)
        return [
            {"threshold": threshold, "coverage": finite_or_none(covered), "accuracy": finite_or_none(correct)}
            for threshold, covered, correct in zip(THRESHOLDS, coverage, accuracy, strict=True)
        ]

    @property
    def _correct(self) -> np.ndarray:
        return self.image_scores.predicted == self.labels

    def image_columns(self) -> dict[str, np.ndarray | list[str]]:
        scores, names = self.image_scores, (*self.classes, "")  # an image without a prediction has the index -1
        return {
            "true_label": [names[index] for index in self.labels],
            "predicted_label": [names[index] for index in scores.predicted],
            "probability": scores.probability,
            "correct": self._correct,
            "true_label_probability": scores.true_probability,
            "loss": scores.loss,
        }

    def scores(self) -> dict[str, np.ndarray]:
        return {"correct": self._correct, "loss": self.image_scores.loss}

    def galleries(self) -> list[Gallery]:
        return galleries_of_classes(self.labels, self.image_scores, self.confusion_cells, self.classes)

    def subset(self, rows: np.ndarray) -> dict[str, Estimate]:
        labels, predicted = self.labels[rows], self.image_scores.predicted[rows]
        overall = overall_metrics(ConfusionMatrix.of(labels, predicted, len(self.classes)).counts())
        estimates = {"accuracy": _proportion(predicted == labels)}
        if "top_5_accuracy" in self.all_metrics:
            estimates["top_5_accuracy"] = _proportion(self.image_scores.true_rank[rows] < 5)
        for name in ("balanced_accuracy", "macro_f1"):
            estimates[name] = Estimate(float(overall[name][0]))
        estimates["log_loss"] = Estimate(_mean(self.image_scores.loss[rows]))
        return estimates


def evaluate_classes(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    num_bad: int = 0,
    *,
    is_softmax: bool = True,
    progress: Progress | None = None,
) -> ClassificationEvaluation:
    """Computes the metrics of a classifier.

    Args:
        labels: int `(num_images,)`, index of each image's class.
        probabilities: float `(num_images, num_classes)`, possibly memory-mapped.
        classes: names of the classes.
        num_bad: number of images that could not be read.
        is_softmax: whether the probabilities are those of a softmax, which temperature scaling needs.
        progress: called from time to time with what is being computed, and the fraction that is done.
    """
    scores = score_images(labels, probabilities, progress)
    confusion = ConfusionMatrix.of(labels, scores.predicted, len(classes))
    auroc, average_precision = one_vs_rest(labels, probabilities, progress)
    auroc_interval, average_precision_interval = macro_intervals(labels, probabilities) or ((None, None), (None, None))
    calibration = calibrate(labels, probabilities, scores, is_softmax=is_softmax, progress=progress)
    all_metrics = {
        **overall_estimates(scores, confusion, progress),
        "macro_auroc": Estimate(_mean(auroc[~np.isnan(auroc)]), *auroc_interval),
        "macro_average_precision": Estimate(
            _mean(average_precision[~np.isnan(average_precision)]), *average_precision_interval
        ),
        "ece": Estimate(calibration.before.ece),
    }
    return ClassificationEvaluation(
        num_images=len(labels),
        num_bad=num_bad,
        classes=classes,
        labels=labels,
        image_scores=scores,
        confusion_cells=confusion,
        calibration=calibration,
        auroc=auroc,
        average_precision=average_precision,
        all_metrics={name: all_metrics[name] for name in (*_SHOWN, *all_metrics) if name in all_metrics},
    )


def _proportion(hits: np.ndarray) -> Estimate:
    low, high = wilson_interval(np.count_nonzero(hits), len(hits))
    return Estimate(_mean(hits), float(low), float(high))


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else np.nan
