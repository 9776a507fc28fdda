"""Metrics as sums: what a batch adds is a short vector, what a data set says is a function of their total.

Sums add up over batches, devices and machines in any order, so one device and eight agree, and a validation
that comes in parts counts every image once.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from model_trainer.config import Choice

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Accuracy", "MacroRecall", "Metric", "TopK"]


class Metric(Choice):
    """A figure over labelled predictions, larger is better."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its column in history.csv."""

    @abstractmethod
    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """float32 `(k,)`: what a batch adds.

        Args:
            targets: float32 `(batch, num_classes)`; the class is the largest.
            probabilities: float32 `(batch, num_classes)`.
            weights: float32 `(batch,)`; 0 leaves an example out.
        """

    @abstractmethod
    def value(self, total: np.ndarray) -> float:
        """The figure, 0 to 1, from float64 `(k,)` summed over all batches; NaN when nothing was counted."""


@final
class Accuracy(Metric):
    """Share of the images whose most probable class is the right one."""

    @property
    def name(self) -> str:
        return "accuracy"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        right = tf.cast(tf.argmax(probabilities, -1) == tf.argmax(targets, -1), tf.float32)
        return tf.stack([tf.reduce_sum(right * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return _ratio(total[0], total[1])


@final
class TopK(Metric):
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
        return _ratio(total[0], total[1])


@final
class MacroRecall(Metric):
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


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
