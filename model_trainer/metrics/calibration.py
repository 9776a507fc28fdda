"""Calibration: is a prediction of 80 % right in 80 % of the cases? Measured, and improved by temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model_trainer.metrics.chunks import Progress, row_chunks
from model_trainer.metrics.estimate import finite_or_none
from model_trainer.metrics.image_scores import ImageScores, score_images

__all__ = ["NUM_BINS", "Calibration", "Reliability", "calibrate", "fit_temperature", "reliability", "with_temperature"]

NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

_CHUNK_BYTES = 32 << 20
_CACHE_BYTES = 4 << 20  # of the processor
_MAX_VALUES = 40_000_000  # probabilities that a temperature is fitted to; more are not needed for one number
_MAX_EXACT = 2_000_000  # up to this many are converted to float64, which takes several times as long


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far the probability of the predicted class is from the fraction of predictions that are right.

    Attributes:
        ece: expected calibration error, over `NUM_BINS` bins of equal width.
        brier, log_loss: means over images; see `ImageScores`.
        images: int `(NUM_BINS,)`, images in each bin, which includes its upper end.
        confidence, accuracy: float64 `(NUM_BINS,)`, mean probability and fraction of hits; NaN in an empty bin.
    """

    ece: float
    brier: float
    log_loss: float
    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Returns it as strict JSON, with a list of bins."""
        bins = [
            {
                "low": index / NUM_BINS,
                "high": (index + 1) / NUM_BINS,
                "images": int(self.images[index]),
                "confidence": finite_or_none(self.confidence[index]),
                "accuracy": finite_or_none(self.accuracy[index]),
            }
            for index in range(NUM_BINS)
        ]
        return {
            "ece": finite_or_none(self.ece),
            "brier": finite_or_none(self.brier),
            "log_loss": finite_or_none(self.log_loss),
            "bins": bins,
        }


@dataclass(frozen=True, eq=False)
class Calibration:
    """The reliability of a classifier as it is, and after temperature scaling.

    Attributes:
        temperature: None if there is no best one in its range; see `fit_temperature`.
        before, after: reliability of the probabilities as they are, and with the temperature; None without one.
    """

    temperature: float | None
    before: Reliability
    after: Reliability | None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as strict JSON."""
        after = None if self.after is None else self.after.to_dict()
        return {"temperature": self.temperature, "before": self.before.to_dict(), "after": after}


def reliability(scores: ImageScores, labels: np.ndarray) -> Reliability:
    """Computes the reliability of scored images; images without a prediction make ECE, Brier score and log loss NaN.

    Example:
        >>> from model_trainer.metrics.calibration import reliability
        >>> from model_trainer.metrics.image_scores import score_images
        >>> labels, probabilities = np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]])
        >>> round(reliability(score_images(labels, probabilities), labels).ece, 3)  # half are right, not 80 %
        0.3
    """
    known = scores.is_finite
    confidence = scores.probability[known].astype(np.float64)
    correct = (scores.predicted == labels)[known]
    # Bins as in Guo et al.: a value on an edge belongs to the lower bin, and 0 to the first.
    bins = np.clip(np.digitize(confidence, np.linspace(0.0, 1.0, NUM_BINS + 1), right=True) - 1, 0, NUM_BINS - 1)
    images = np.bincount(bins, minlength=NUM_BINS)
    totals = [np.bincount(bins, weights, NUM_BINS) for weights in (confidence, correct)]
    undefined = np.full(NUM_BINS, np.nan)
    means = [np.divide(total, images, out=undefined.copy(), where=images > 0) for total in totals]
    gaps = np.abs(totals[0] - totals[1])
    is_defined = bool(known.all()) and len(known) > 0
    return Reliability(
        ece=float(gaps.sum() / len(known)) if is_defined else np.nan,
        brier=float(scores.brier.mean()) if is_defined else np.nan,
        log_loss=float(scores.loss.mean()) if is_defined else np.nan,
        images=images,
        confidence=means[0],
        accuracy=means[1],
    )


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits behind probabilities by a temperature: above 1 the predictions become less confident.

    Args:
        probabilities: float `(num_images, num_classes)`, of a softmax.

    Returns:
        Probabilities of the same shape and dtype; the order of the classes of an image stays the same.

    Example:
        >>> from model_trainer.metrics.calibration import with_temperature
        >>> with_temperature(np.array([[0.8, 0.2]]), temperature=2.0).round(3).tolist()
        [[0.667, 0.333]]

    Source: https://arxiv.org/abs/1706.04599
    """
    with np.errstate(divide="ignore"):  # of 0, whose logarithm remains minus infinity
        logits = np.log(probabilities)
    logits -= logits.max(axis=1, keepdims=True)
    logits /= temperature
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray, progress: Progress | None = None) -> float | None:
    """Finds the temperature with the lowest mean cross-entropy.

    With more than 40 million probabilities it uses evenly spaced images, which are enough for a single number.

    Args:
        labels: int `(num_images,)`, the true class of each image.
        probabilities: float `(num_images, num_classes)`, possibly memory-mapped.

    Returns:
        The temperature; None if a probability is NaN, or if the best temperature is not between 0.05 and 20. If every
        prediction is right, for example, more confidence is always better, and the best temperature is 0.

    Example:
        >>> from model_trainer.metrics.calibration import fit_temperature
        >>> labels, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1]] * 3)  # 2 of 3 are right
        >>> round(fit_temperature(labels, probabilities), 3)
        3.17
    """
    from scipy.optimize import brentq

    num_images, num_classes = probabilities.shape
    count = min(num_images, max(1, _MAX_VALUES // num_classes))
    sample = np.linspace(0, num_images - 1, count).astype(np.int64) if count else np.zeros(0, np.int64)
    logits = np.empty((count, num_classes), np.float64 if count * num_classes <= _MAX_EXACT else probabilities.dtype)
    done = 0
    for rows in row_chunks(probabilities, _CHUNK_BYTES):
        in_chunk = sample[np.searchsorted(sample, rows.start) : np.searchsorted(sample, rows.stop)]
        logits[done : done + len(in_chunk)] = _logits(probabilities[rows][in_chunk - rows.start])
        done += len(in_chunk)
    truth = labels[sample]
    if not count or not np.isfinite(logits).all():
        return None
    steps = 0

    def slope(inverse: float) -> float:
        """The derivative of the mean cross-entropy, which is convex in the inverse of the temperature."""
        nonlocal steps
        steps += 1
        if progress is not None:
            progress("fitting the temperature", min(steps / 15, 1.0))  # about 15 are needed
        return _slope(inverse, logits, truth)

    # The slope rises with the inverse: that is doubled or halved, from 1, until the sign of the slope changes. It stays
    # 0 if all probabilities are equal, and negative, until it underflows to 0, if every prediction is right.
    direction = 1.0 if slope(1.0) >= 0.0 else -1.0
    factor, inverse = 0.5**direction, 1.0
    while direction * slope(inverse * factor) >= 0.0:
        inverse *= factor
        if not MIN_TEMPERATURE <= inverse <= MAX_TEMPERATURE:
            return None
    temperature = 1.0 / brentq(slope, *sorted((inverse, inverse * factor)), xtol=1e-6, rtol=1e-6)
    return temperature if MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE else None


def calibrate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    scores: ImageScores,
    *,
    is_softmax: bool = True,
    progress: Progress | None = None,
) -> Calibration:
    """Measures the calibration of probabilities, fits a temperature to them, and measures it again.

    Probabilities of independent sigmoids, which need not sum to 1, get no temperature: the one that calibrates all of
    them best can make the calibration of the largest one worse.

    Args:
        scores: from `score_images` for the same labels and probabilities.
        labels, probabilities, progress: as in `fit_temperature`.
        is_softmax: whether the probabilities are those of a softmax.
    """
    before = reliability(scores, labels)
    temperature = fit_temperature(labels, probabilities, progress) if is_softmax else None
    if temperature is None:
        return Calibration(None, before, None)
    chunk_scores = []
    for rows in row_chunks(probabilities, _CHUNK_BYTES):
        scaled = with_temperature(np.asarray(probabilities[rows]), temperature)
        chunk_scores.append(score_images(labels[rows], scaled))
        if progress is not None:
            progress("applying the temperature", rows.stop / len(labels))
    fields = ImageScores.__dataclass_fields__
    joined = ImageScores(**{name: np.concatenate([getattr(chunk, name) for chunk in chunk_scores]) for name in fields})
    return Calibration(temperature, before, reliability(joined, labels))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Returns logits up to a constant for each image; a probability of 0 counts as the smallest positive number."""
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny)))


def _slope(inverse: float, logits: np.ndarray, truth: np.ndarray) -> float:
    """Returns the derivative of the mean cross-entropy with respect to the inverse of the temperature."""
    total = 0.0
    for rows in row_chunks(logits, 16 << 20):
        chunk = logits[rows].astype(np.float64)
        scaled = chunk * inverse
        scaled -= scaled.max(axis=1, keepdims=True)
        weights = np.exp(scaled, out=scaled)
        weights /= weights.sum(axis=1, keepdims=True)
        total += float(np.einsum("ij,ij->", weights, chunk)) - float(chunk[np.arange(len(chunk)), truth[rows]].sum())
    return total / len(logits)
