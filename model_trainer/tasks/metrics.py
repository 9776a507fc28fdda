"""Metrics as sums: what a batch adds is a short vector, what a data set says is a function of their total.

Sums add up over batches, devices and machines in any order, so one device and eight agree, and a validation
that comes in parts counts every image once. What cannot be had from sums, such as average precision, is computed over
the collected predictions of a whole validation.
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
    """A figure over labelled predictions, larger is better.

    Attributes:
        label_kind: "single" where each image has one class, "tags" where it has any number.
    """

    label_kind: ClassVar[Literal["single", "tags"]] = "single"

    @property
    @abstractmethod
    def name(self) -> str:
        """Its column in history.csv."""


class AdditiveMetric(Metric):
    """A metric that is a function of sums; it is had of training and of validation."""

    @abstractmethod
    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """float32 `(k,)`: what a batch adds.

        Args:
            targets: float32 `(batch, num_classes)`; of single labels the class is the largest; of tags 1 and 0, NaN
                where nobody knows.
            probabilities: float32 `(batch, num_classes)`.
            weights: float32 `(batch,)`; 0 leaves an example out.
        """

    @abstractmethod
    def value(self, total: np.ndarray) -> float:
        """The figure, 0 to 1, from float64 `(k,)` summed over all batches; NaN when nothing was counted."""


class FullPassMetric(Metric):
    """A metric over all predictions at once; it is had of validation only, whose predictions are kept for it."""

    @abstractmethod
    def compute(self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
        """The figure, 0 to 1; NaN when nothing can be said. Arguments as `AdditiveMetric.sums`, of all images."""


@final
class Accuracy(AdditiveMetric):
    """Share of the images whose most probable class is the right one."""

    @property
    def name(self) -> str:
        return "accuracy"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        right = tf.cast(tf.argmax(probabilities, -1) == tf.argmax(targets, -1), tf.float32)
        return tf.stack([tf.reduce_sum(right * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


@final
class TopK(AdditiveMetric):
    """Share of the images whose right class is among the `k` most probable."""

    k: int = Field(5, ge=1)

    @property
    def name(self) -> str:
        return f"top_{self.k}_accuracy"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        k = min(self.k, int(targets.shape[-1]))
        best = tf.math.top_k(probabilities, k).indices
        labels = tf.argmax(targets, -1, output_type=tf.int32)
        right = tf.cast(tf.reduce_any(best == labels[:, None], axis=-1), tf.float32)
        return tf.stack([tf.reduce_sum(right * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


@final
class MacroRecall(AdditiveMetric):
    """Recall of each class, then their mean: small classes count as much as large ones. Also called sensitivity.

    Classes without an image are left out of the mean.
    """

    @property
    def name(self) -> str:
        return "sensitivity"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        num_classes = int(targets.shape[-1])
        labels = tf.argmax(targets, -1)
        of_class = tf.one_hot(labels, num_classes) * weights[:, None]
        right = tf.cast(tf.argmax(probabilities, -1) == labels, tf.float32)
        return tf.concat([tf.reduce_sum(of_class * right[:, None], 0), tf.reduce_sum(of_class, 0)], axis=0)

    def value(self, total: np.ndarray) -> float:
        right, count = np.split(total, 2)
        seen = count > 0
        return float(np.mean(right[seen] / count[seen])) if seen.any() else float("nan")


def ratio(part: float, whole: float) -> float:
    """part / whole, NaN where there is no whole."""
    return float(part / whole) if whole > 0 else float("nan")
