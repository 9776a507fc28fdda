"""Metrics of predicted classes, all computed from the counts of one sparse confusion matrix, so that they agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["ClassCounts", "ConfusionMatrix", "class_metrics", "overall_metrics"]


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """A confusion matrix as a list of its non-zero cells, so that 20,000 classes do not need 3 GB.

    Attributes:
        true, predicted: int64 `(k,)`, classes of each cell, in the order of the matrix; -1, no prediction, is last.
        images: int64 `(k,)`, number of images in each cell.
        cell_of_image: int64 `(num_images,)`, the cell of each image.
        num_classes: number of classes.

    Example:
        >>> from model_trainer.metrics.classification import ConfusionMatrix
        >>> confusion = ConfusionMatrix.of(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
        >>> confusion.matrix().tolist(), confusion.largest()
        ([[1, 1], [0, 1]], [(0, 1, 1)])
    """

    true: np.ndarray
    predicted: np.ndarray
    images: np.ndarray
    cell_of_image: np.ndarray
    num_classes: int

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> ConfusionMatrix:
        """Counts the images of each pair of true and predicted class."""
        columns = np.where(predicted < 0, num_classes, predicted).astype(np.int64)
        codes = labels.astype(np.int64) * (num_classes + 1) + columns
        cells, cell_of_image, images = np.unique(codes, return_inverse=True, return_counts=True)
        column = cells % (num_classes + 1)
        column[column == num_classes] = -1
        return cls(cells // (num_classes + 1), column, images, cell_of_image, num_classes)

    def matrix(self) -> np.ndarray:
        """Returns int64 `(num_classes, num_classes)`: rows are true classes, columns predicted ones."""
        dense = np.zeros((self.num_classes, self.num_classes), np.int64)
        has_prediction = self.predicted >= 0
        dense[self.true[has_prediction], self.predicted[has_prediction]] = self.images[has_prediction]
        return dense

    def largest(self, limit: int = 100) -> list[tuple[int, int, int]]:
        """Returns the confusions with the most images: `(true class, predicted class, images)`, the largest first."""
        wrong = np.flatnonzero((self.true != self.predicted) & (self.predicted >= 0))
        order = wrong[np.argsort(-self.images[wrong], kind="stable")][:limit]
        columns = (self.true[order], self.predicted[order], self.images[order])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def most_confused_with(self) -> list[tuple[int, int] | None]:
        """Returns for each true class the wrong class that is predicted most often, and how often; None if never."""
        answers: list[tuple[int, int] | None] = [None] * self.num_classes
        wrong = np.flatnonzero((self.true != self.predicted) & (self.predicted >= 0))
        for cell in wrong[np.argsort(-self.images[wrong], kind="stable")]:  # among equals the first class
            if answers[self.true[cell]] is None:
                answers[self.true[cell]] = int(self.predicted[cell]), int(self.images[cell])
        return answers

    def counts(self, cells: np.ndarray | None = None) -> ClassCounts:
        """Returns the counts of each class.

        Args:
            cells: int `(b, k)`, other numbers of images for the cells, such as resampled ones; None takes `images`.
        """
        cells = self.images[None] if cells is None else cells
        support, predicted, hits = ((matrix @ cells.T).T for matrix in self._sums)
        return ClassCounts(support, predicted, hits)

    @cached_property
    def _sums(self) -> tuple[Any, Any, Any]:
        """Sparse matrices that sum cells: by true class, by predicted class (last row: no prediction), and hits."""
        from scipy import sparse

        size, k = self.num_classes, len(self.images)
        columns, ones = np.arange(k), np.ones(k, np.int64)
        hit = self.true == self.predicted
        by_prediction = np.where(self.predicted < 0, size, self.predicted)
        return (
            sparse.csr_array((ones, (self.true, columns)), shape=(size, k)),
            sparse.csr_array((ones, (by_prediction, columns)), shape=(size + 1, k)),
            sparse.csr_array((ones[hit], (self.true[hit], columns[hit])), shape=(size, k)),
        )


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Counts of each class in `b` resamples, int `(b, num_classes)`; see `ConfusionMatrix.counts`.

    Attributes:
        support: images of the class.
        predicted: images that were predicted as the class; a last column counts those without a prediction.
        hits: images of the class that were predicted as it.
    """

    support: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray


def class_metrics(counts: ClassCounts) -> dict[str, np.ndarray]:
    """Computes precision, recall, F1 and specificity of each class, float64 `(b, num_classes)`; NaN if undefined.

    Example:
        >>> from model_trainer.metrics.classification import ConfusionMatrix, class_metrics
        >>> confusion = ConfusionMatrix.of(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=3)
        >>> {name: values[0].tolist() for name, values in class_metrics(confusion.counts()).items()}["recall"]
        [0.5, 1.0, nan]
    """
    support, predicted, hits = counts.support, counts.predicted[:, :-1], counts.hits
    negatives = support.sum(axis=1, keepdims=True) - support
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "specificity": _ratio(negatives - predicted + hits, negatives),
    }


def overall_metrics(counts: ClassCounts) -> dict[str, np.ndarray]:
    """Computes the metrics of predicted classes over all images, float64 `(b,)` each; NaN if undefined.

    As in scikit-learn, balanced accuracy is over the classes that occur, and macro averages are over those that occur
    or were predicted; a precision that is undefined counts as 0 there.

    Example:
        >>> from model_trainer.metrics.classification import ConfusionMatrix, overall_metrics
        >>> confusion = ConfusionMatrix.of(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
        >>> {name: round(float(value[0]), 3) for name, value in overall_metrics(confusion.counts()).items()}["macro_f1"]
        0.667
    """
    support, predicted, hits = (
        np.asarray(each, np.float64) for each in (counts.support, counts.predicted, counts.hits)
    )
    total = support.sum(axis=1)
    by_class = class_metrics(counts)
    metrics = {
        "accuracy": _ratio(hits.sum(axis=1), total),
        "balanced_accuracy": _mean(by_class["recall"], support > 0),
    }
    is_counted = (support > 0) | (predicted[:, :-1] > 0)
    for name in ("precision", "recall", "f1"):
        values = np.nan_to_num(by_class[name])
        metrics[f"macro_{name}"] = _mean(values, is_counted)
        metrics[f"weighted_{name}"] = _ratio((values * support).sum(axis=1), total)
    metrics["macro_specificity"] = _mean(by_class["specificity"], is_counted & ~np.isnan(by_class["specificity"]))
    # Agreement by chance: that of true and predicted classes drawn independently of each other.
    by_chance = (support * predicted[:, :-1]).sum(axis=1)
    metrics["cohen_kappa"] = _ratio(hits.sum(axis=1) * total - by_chance, total**2 - by_chance)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (support**2).sum(axis=1))
    matthews = _ratio(hits.sum(axis=1) * total - by_chance, np.sqrt(spread))
    metrics["matthews"] = np.where((spread == 0) & (total > 0), 0.0, matthews)  # as in scikit-learn
    return metrics


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns the mean over the classes where `where` is True; NaN if there is none."""
    return _ratio(np.where(where, values, 0.0).sum(axis=1), where.sum(axis=1))
