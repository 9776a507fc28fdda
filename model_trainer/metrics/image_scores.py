"""Prediction, rank and loss of each image, computed in one pass over the probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_trainer.metrics.chunks import Progress, row_chunks

__all__ = ["ImageScores", "score_images"]

_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class ImageScores:
    """A few numbers for each image, `(num_images,)` each.

    Attributes:
        predicted: int32, the most probable class, among equals the first; -1 if a probability is NaN or infinite.
        probability: of the predicted class; NaN without a prediction.
        true_probability: of the true class.
        true_rank: int32, number of classes that are more probable than the true one; among equals those with a higher
            index come first, as in scikit-learn's `top_k_accuracy_score`. The number of classes without a prediction.
        loss: float64, cross-entropy in nats, with probabilities clipped as scikit-learn's `log_loss` does.
        brier: float64, squared distance between the probabilities and the truth; halved for two classes, as in
            scikit-learn's `brier_score_loss`.
    """

    predicted: np.ndarray
    probability: np.ndarray
    true_probability: np.ndarray
    true_rank: np.ndarray
    loss: np.ndarray
    brier: np.ndarray

    @property
    def is_finite(self) -> np.ndarray:
        """Bool `(num_images,)`: whether the image has a prediction."""
        return self.predicted >= 0


def score_images(labels: np.ndarray, probabilities: np.ndarray, progress: Progress | None = None) -> ImageScores:
    """Scores each image, in one pass over the probabilities.

    Args:
        labels: int `(num_images,)`, the true class of each image.
        probabilities: float `(num_images, num_classes)`, possibly memory-mapped.

    Example:
        >>> from model_trainer.metrics.image_scores import score_images
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]])
        >>> scores = score_images(np.array([0, 0]), probabilities)
        >>> scores.predicted.tolist(), scores.true_rank.tolist(), scores.loss.round(3).tolist()
        ([0, 1], [0, 1], [0.357, 1.204])
    """
    num_images, num_classes = probabilities.shape
    predicted = np.empty(num_images, np.int32)
    probability = np.empty(num_images, probabilities.dtype)
    true_probability = np.empty(num_images, probabilities.dtype)
    true_rank = np.empty(num_images, np.int32)
    squares = np.empty(num_images, np.float64)
    for rows in row_chunks(probabilities, _CHUNK_BYTES):
        chunk = np.asarray(probabilities[rows])
        within = np.arange(len(chunk))
        best = chunk.argmax(axis=1)
        truth = chunk[within, labels[rows]]
        squares[rows] = np.einsum("ij,ij->i", chunk, chunk)
        has_prediction = np.isfinite(squares[rows])
        predicted[rows] = np.where(has_prediction, best, -1)
        probability[rows] = np.where(has_prediction, chunk[within, best], np.nan)
        true_probability[rows] = truth
        true_rank[rows] = np.where(has_prediction, _ranks(chunk, labels[rows], truth), num_classes)
        if progress is not None:
            progress("comparing predictions with labels", rows.stop / num_images)
    eps = np.finfo(probabilities.dtype).eps
    brier = squares - 2.0 * true_probability + 1.0
    return ImageScores(
        predicted=predicted,
        probability=probability,
        true_probability=true_probability,
        true_rank=true_rank,
        loss=np.where(predicted < 0, np.nan, -np.log(np.clip(true_probability, eps, 1 - eps).astype(np.float64))),
        brier=np.where(predicted < 0, np.nan, np.maximum(brier, 0.0) / (2.0 if num_classes == 2 else 1.0)),
    )


def _ranks(chunk: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    ranks = np.count_nonzero(chunk > truth[:, None], axis=1)
    tied = np.flatnonzero(np.count_nonzero(chunk == truth[:, None], axis=1) > 1)
    is_later = np.arange(chunk.shape[1]) > labels[tied, None]
    ranks[tied] += np.count_nonzero((chunk[tied] == truth[tied, None]) & is_later, axis=1)
    return ranks
