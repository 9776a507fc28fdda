"""Multi-label metrics. Unknown labels (NaN) are masked; on known labels they equal those of scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from model_trainer.errors import ConfigError
from model_trainer.tasks.metrics import AdditiveMetric, FullPassMetric, ratio

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "AveragePrecision",
    "ExactMatch",
    "MacroF1",
    "MeanAveragePrecision",
    "MicroF1",
    "PrecisionAtK",
    "RecallAtK",
    "average_precisions",
]


@final
class MeanAveragePrecision(FullPassMetric):
    """Mean average precision (mAP): the mean over classes of their average precision.

    Classes without a positive image are left out of the mean.

    Example:
        >>> targets, probabilities = np.float32([[1, 0], [0, 1]]), np.float32([[0.9, 0.6], [0.2, 0.4]])
        >>> MeanAveragePrecision().compute(targets, probabilities, weights=np.ones(2, np.float32))
        0.75
    """

    label_kind = "tags"

    @property
    def name(self) -> str:
        return "map"

    def compute(self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
        by_class = average_precisions(targets, probabilities, weights)
        return float(np.nanmean(by_class)) if np.isfinite(by_class).any() else float("nan")


@final
class AveragePrecision(FullPassMetric):
    """Average precision of one class.

    Fields:
        index: of the class in the list of classes, counted from 0.

    Example:
        >>> targets, probabilities = np.float32([[1, 0], [0, 1]]), np.float32([[0.9, 0.6], [0.2, 0.4]])
        >>> AveragePrecision(1).compute(targets, probabilities, weights=np.ones(2, np.float32))
        0.5
    """

    label_kind = "tags"
    index: int = Field(ge=0)

    @property
    def name(self) -> str:
        return f"average_precision_{self.index}"

    def compute(self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
        if self.index >= targets.shape[1]:
            raise ConfigError(f"is {self.index}, but there are {targets.shape[1]} classes, counted from 0.", "index")
        column = slice(self.index, self.index + 1)
        return float(average_precisions(targets[:, column], probabilities[:, column], weights)[0])


class _F1(AdditiveMetric):
    """Sums true positives, false positives and false negatives of each class.

    Fields:
        threshold: minimum probability of a predicted label.
    """

    label_kind = "tags"
    threshold: float = Field(0.5, gt=0, lt=1)

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        positive, known = _positive_and_known(targets)
        predicted = tf.cast(probabilities >= self.threshold, tf.float32)
        label_weights = known * weights[:, None]
        outcomes = [positive * predicted, (1.0 - positive) * predicted, positive * (1.0 - predicted)]
        return tf.concat([tf.reduce_sum(outcome * label_weights, 0) for outcome in outcomes], 0)


@final
class MicroF1(_F1):
    """Micro-averaged F1: over all labels of all classes together.

    Example:
        >>> targets, probabilities = np.float32([[1, 0, 1]]), np.float32([[0.9, 0.7, 0.6]])
        >>> f1 = MicroF1(threshold=0.5)
        >>> round(f1.value(f1.sums(targets, probabilities, weights=np.ones(1, np.float32)).numpy()), 3)
        0.8
    """

    @property
    def name(self) -> str:
        return "micro_f1"

    def value(self, total: np.ndarray) -> float:
        true_positives, false_positives, false_negatives = (counts.sum() for counts in np.split(total, 3))
        return ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives)


@final
class MacroF1(_F1):
    """Macro-averaged F1: the mean over classes of their F1, which is 0 for a class without a true positive.

    Classes that neither occur nor were predicted are left out of the mean.

    Example:
        >>> targets, probabilities = np.float32([[1, 0, 1]]), np.float32([[0.9, 0.7, 0.6]])
        >>> f1 = MacroF1()
        >>> round(f1.value(f1.sums(targets, probabilities, weights=np.ones(1, np.float32)).numpy()), 3)
        0.667
    """

    @property
    def name(self) -> str:
        return "macro_f1"

    def value(self, total: np.ndarray) -> float:
        true_positives, false_positives, false_negatives = np.split(total, 3)
        denominator = 2 * true_positives + false_positives + false_negatives
        is_counted = denominator > 0
        f1 = 2 * true_positives[is_counted] / denominator[is_counted]
        return float(np.mean(f1)) if is_counted.any() else float("nan")


class _AtK(AdditiveMetric):
    """A metric of the `k` most probable labels of each image."""

    label_kind = "tags"
    k: int = Field(5, ge=1)

    def _hits(self, targets: tf.Tensor, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns two float32 `(batch,)`: true labels among the k most probable known ones, and all true labels."""
        import tensorflow as tf

        positive, known = _positive_and_known(targets)
        k = min(self.k, int(targets.shape[-1]))
        top_k = tf.math.top_k(tf.where(known > 0, probabilities, -1.0), k).indices
        return tf.reduce_sum(tf.gather(positive, top_k, batch_dims=1), -1), tf.reduce_sum(positive, -1)

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


@final
class PrecisionAtK(_AtK):
    """Precision at k: the fraction of an image's k most probable labels that are true; the mean over images.

    Images without a known label are left out.

    Example:
        >>> targets, probabilities = np.float32([[1, 0, 1]]), np.float32([[0.9, 0.7, 0.6]])
        >>> precision = PrecisionAtK(k=2)
        >>> precision.value(precision.sums(targets, probabilities, weights=np.ones(1, np.float32)).numpy())
        0.5
    """

    @property
    def name(self) -> str:
        return f"precision_at_{self.k}"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        hits, _ = self._hits(targets, probabilities)
        k = min(self.k, int(targets.shape[-1]))
        weights = weights * _has_known(targets)
        return tf.stack([tf.reduce_sum(hits / k * weights), tf.reduce_sum(weights)])


@final
class RecallAtK(_AtK):
    """Recall at k: the fraction of an image's true labels among its k most probable; the mean over images.

    Images without a true label are left out.

    Example:
        >>> targets, probabilities = np.float32([[1, 0, 1]]), np.float32([[0.9, 0.7, 0.6]])
        >>> recall = RecallAtK(k=3)
        >>> recall.value(recall.sums(targets, probabilities, weights=np.ones(1, np.float32)).numpy())
        1.0
    """

    @property
    def name(self) -> str:
        return f"recall_at_{self.k}"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        hits, num_true = self._hits(targets, probabilities)
        weights = tf.cast(num_true > 0, tf.float32) * weights
        return tf.stack([tf.reduce_sum(tf.math.divide_no_nan(hits, num_true) * weights), tf.reduce_sum(weights)])


@final
class ExactMatch(AdditiveMetric):
    """Exact match ratio (subset accuracy): the fraction of the images of which every known label is right.

    Images without a known label are left out.

    Fields:
        threshold: minimum probability of a predicted label.

    Example:
        >>> targets, probabilities = np.float32([[1, 0], [0, 1]]), np.float32([[0.9, 0.1], [0.6, 0.8]])
        >>> match = ExactMatch()
        >>> match.value(match.sums(targets, probabilities, weights=np.ones(2, np.float32)).numpy())
        0.5
    """

    label_kind = "tags"
    threshold: float = Field(0.5, gt=0, lt=1)

    @property
    def name(self) -> str:
        return "exact_match"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        positive, known = _positive_and_known(targets)
        predicted = tf.cast(probabilities >= self.threshold, tf.float32)
        is_match = tf.cast(tf.reduce_all((predicted == positive) | (known == 0), axis=-1), tf.float32)
        weights = weights * _has_known(targets)
        return tf.stack([tf.reduce_sum(is_match * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


def average_precisions(targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns float64 `(num_classes,)`: scikit-learn's average precision of each class.

    It is computed over the images in which the class is known, and is NaN for a class without a positive image.
    """
    from sklearn.metrics import average_precision_score

    by_class = np.full(targets.shape[1], np.nan)
    for index in range(targets.shape[1]):
        known = ~np.isnan(targets[:, index]) & (weights > 0)
        positive = targets[known, index] >= 0.5
        if positive.any():
            by_class[index] = average_precision_score(
                positive, probabilities[known, index], sample_weight=weights[known]
            )
    return by_class


def _positive_and_known(targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 masks of the positive and of the known labels; a soft target of 0.5 or more is positive."""
    import tensorflow as tf

    known = ~tf.math.is_nan(targets)
    return tf.cast(known & (targets >= 0.5), tf.float32), tf.cast(known, tf.float32)


def _has_known(targets: tf.Tensor) -> tf.Tensor:
    """float32 `(batch,)`: 1 for an image with a known label, otherwise 0."""
    import tensorflow as tf

    return tf.cast(tf.reduce_any(~tf.math.is_nan(targets), axis=-1), tf.float32)
