"""Metrics: additive ones, computed from sums over batches, and those that need all predictions at once.

An additive metric reduces each batch to a short vector, and its value is a function of the total. Sums add up over
batches, devices and machines in any order, so that one device and eight give the same value, and each image counts
once. A metric that is not a function of sums, such as average precision, is computed from the collected predictions of
a whole validation.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, final

import numpy as np
from pydantic import Field

from model_trainer.config import Choice

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Accuracy", "AdditiveMetric", "FullPassMetric", "MacroRecall", "Metric", "TopK", "ratio"]


class Metric(Choice):
    """A metric of labeled predictions; higher is better.

    Attributes:
        label_kind: "single" if each image has one class, "tags" if it has any number of them.
    """

    label_kind: ClassVar[Literal["single", "tags"]] = "single"

    @property
    @abstractmethod
    def name(self) -> str:
        """Column of the metric in `history.csv`."""


class AdditiveMetric(Metric):
    """A metric that is a function of sums over examples; available in training and in validation."""

    @abstractmethod
    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns float32 `(k,)`: the sums over a batch.

        Args:
            targets: float32 `(batch, num_classes)`; for single labels the true class has the largest value; for tags 1
                is present, 0 absent, NaN unknown.
            probabilities: float32 `(batch, num_classes)`.
            weights: float32 `(batch,)`; examples with 0 do not count.
        """

    @abstractmethod
    def value(self, total: np.ndarray) -> float:
        """Returns the metric, 0 to 1, from the float64 `(k,)` total over all batches; NaN without any example."""


class FullPassMetric(Metric):
    """A metric over all predictions at once; available in validation only, which collects its predictions for it."""

    @abstractmethod
    def compute(self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
        """Returns the metric, 0 to 1; NaN if it is undefined.

        The arguments are those of `AdditiveMetric.sums`, over all images.
        """


@final
class Accuracy(AdditiveMetric):
    """Fraction of the images whose most probable class is the true one.

    Example:
        >>> targets, probabilities = np.float32([[1, 0], [0, 1]]), np.float32([[0.9, 0.1], [0.8, 0.2]])
        >>> accuracy = Accuracy()
        >>> accuracy.value(accuracy.sums(targets, probabilities, weights=np.ones(2, np.float32)).numpy())
        0.5
    """

    @property
    def name(self) -> str:
        return "accuracy"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        correct = tf.cast(tf.argmax(probabilities, -1) == tf.argmax(targets, -1), tf.float32)
        return tf.stack([tf.reduce_sum(correct * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


@final
class TopK(AdditiveMetric):
    """Top-k accuracy: fraction of the images whose true class is among the `k` most probable.

    Example:
        >>> task = Classification(metrics=(Accuracy(), TopK(k=3)))
        >>> [metric.name for metric in task.metrics]
        ['accuracy', 'top_3_accuracy']
    """

    k: int = Field(5, ge=1)

    @property
    def name(self) -> str:
        return f"top_{self.k}_accuracy"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        k = min(self.k, int(targets.shape[-1]))
        top_k = tf.math.top_k(probabilities, k).indices
        labels = tf.argmax(targets, -1, output_type=tf.int32)
        correct = tf.cast(tf.reduce_any(top_k == labels[:, None], axis=-1), tf.float32)
        return tf.stack([tf.reduce_sum(correct * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


@final
class MacroRecall(AdditiveMetric):
    """Macro-averaged recall (sensitivity): the mean of the recall of each class, whatever its number of images.

    Classes without an image are left out of the mean.

    Example:
        >>> targets = np.float32([[1, 0], [1, 0], [1, 0], [0, 1]])
        >>> always_first = np.float32([[0.9, 0.1]] * 4)
        >>> recall = MacroRecall()
        >>> recall.value(recall.sums(targets, always_first, weights=np.ones(4, np.float32)).numpy())
        0.5
    """

    @property
    def name(self) -> str:
        return "sensitivity"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        num_classes = int(targets.shape[-1])
        labels = tf.argmax(targets, -1)
        counts = tf.one_hot(labels, num_classes) * weights[:, None]
        correct = tf.cast(tf.argmax(probabilities, -1) == labels, tf.float32)
        return tf.concat([tf.reduce_sum(counts * correct[:, None], 0), tf.reduce_sum(counts, 0)], axis=0)

    def value(self, total: np.ndarray) -> float:
        correct, count = np.split(total, 2)
        occurs = count > 0
        return float(np.mean(correct[occurs] / count[occurs])) if occurs.any() else float("nan")


def ratio(numerator: float, denominator: float) -> float:
    """Returns numerator / denominator, or NaN if the denominator is 0."""
    return float(numerator / denominator) if denominator > 0 else float("nan")
