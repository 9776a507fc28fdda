"""Metrics of tags. Labels that nobody knows (NaN) count nowhere; each equals scikit-learn's of the same name."""

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
    """Average precision of each class, then their mean. Classes without a positive image are left out of it."""

    label_kind = "tags"

    @property
    def name(self) -> str:
        return "map"

    def compute(self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
        each = average_precisions(targets, probabilities, weights)
        return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


@final
class AveragePrecision(FullPassMetric):
    """Average precision of one class, by its position in the class list."""

    label_kind = "tags"
    index: int = Field(ge=0)

    @property
    def name(self) -> str:
        return f"average_precision_{self.index}"

    def compute(self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
        if self.index >= targets.shape[1]:
            raise ConfigError(f"is {self.index}, but there are {targets.shape[1]} classes, counted from 0.", "index")
        one = slice(self.index, self.index + 1)
        return float(average_precisions(targets[:, one], probabilities[:, one], weights)[0])


class _F1(AdditiveMetric):
    """Counts of each class: true positives, false positives, false negatives."""

    label_kind = "tags"
    threshold: float = Field(0.5, gt=0, lt=1)

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        positive, known = _positive_and_known(targets)
        said = tf.cast(probabilities >= self.threshold, tf.float32)
        counted = known * weights[:, None]
        counts = [positive * said, (1.0 - positive) * said, positive * (1.0 - said)]
        return tf.concat([tf.reduce_sum(each * counted, 0) for each in counts], 0)


@final
class MicroF1(_F1):
    """F1 over all labels of all classes together."""

    @property
    def name(self) -> str:
        return "micro_f1"

    def value(self, total: np.ndarray) -> float:
        right, false, missed = (counts.sum() for counts in np.split(total, 3))
        return ratio(2 * right, 2 * right + false + missed)


@final
class MacroF1(_F1):
    """F1 of each class, then their mean; 0 for a class of which nothing was found, as scikit-learn has it.

    Classes that neither occur nor were said are left out of the mean.
    """

    @property
    def name(self) -> str:
        return "macro_f1"

    def value(self, total: np.ndarray) -> float:
        right, false, missed = np.split(total, 3)
        whole = 2 * right + false + missed
        seen = whole > 0
        return float(np.mean(2 * right[seen] / whole[seen])) if seen.any() else float("nan")


class _AtK(AdditiveMetric):
    label_kind = "tags"
    k: int = Field(5, ge=1)

    def _hits(self, targets: tf.Tensor, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 `(batch,)` twice: true labels among the k most probable known ones, and true labels."""
        import tensorflow as tf

        positive, known = _positive_and_known(targets)
        k = min(self.k, int(targets.shape[-1]))
        best = tf.math.top_k(tf.where(known > 0, probabilities, -1.0), k).indices
        return tf.reduce_sum(tf.gather(positive, best, batch_dims=1), -1), tf.reduce_sum(positive, -1)

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


@final
class PrecisionAtK(_AtK):
    """Of the k most probable labels of an image, the share that is true; the mean over images."""

    @property
    def name(self) -> str:
        return f"precision_at_{self.k}"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        hits, _ = self._hits(targets, probabilities)
        k = min(self.k, int(targets.shape[-1]))
        return tf.stack([tf.reduce_sum(hits / k * weights), tf.reduce_sum(weights)])


@final
class RecallAtK(_AtK):
    """Of the true labels of an image, the share among its k most probable; the mean over images that have any."""

    @property
    def name(self) -> str:
        return f"recall_at_{self.k}"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        hits, true = self._hits(targets, probabilities)
        has_any = tf.cast(true > 0, tf.float32) * weights
        return tf.stack([tf.reduce_sum(tf.math.divide_no_nan(hits, true) * has_any), tf.reduce_sum(has_any)])


@final
class ExactMatch(AdditiveMetric):
    """Share of the images of which every known label is right."""

    label_kind = "tags"
    threshold: float = Field(0.5, gt=0, lt=1)

    @property
    def name(self) -> str:
        return "exact_match"

    def sums(self, targets: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        positive, known = _positive_and_known(targets)
        said = tf.cast(probabilities >= self.threshold, tf.float32)
        right = tf.cast(tf.reduce_all((said == positive) | (known == 0), axis=-1), tf.float32)
        return tf.stack([tf.reduce_sum(right * weights), tf.reduce_sum(weights)])

    def value(self, total: np.ndarray) -> float:
        return ratio(total[0], total[1])


def average_precisions(targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 `(num_classes,)`: scikit-learn's average precision of each class over its known images.

    NaN for a class without a positive image.
    """
    from sklearn.metrics import average_precision_score

    metrics = np.full(targets.shape[1], np.nan)
    for index in range(targets.shape[1]):
        known = ~np.isnan(targets[:, index]) & (weights > 0)
        positive = targets[known, index] >= 0.5
        if positive.any():
            metrics[index] = average_precision_score(
                positive, probabilities[known, index], sample_weight=weights[known]
            )
    return metrics


def _positive_and_known(targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 masks; a soft target counts as positive from a half on."""
    import tensorflow as tf

    known = ~tf.math.is_nan(targets)
    return tf.cast(known & (targets >= 0.5), tf.float32), tf.cast(known, tf.float32)
