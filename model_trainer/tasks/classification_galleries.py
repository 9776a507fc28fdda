"""Selects the images of a classifier's evaluation that are worth a look."""

from __future__ import annotations

import numpy as np

from model_trainer.metrics.classification import ConfusionMatrix
from model_trainer.metrics.image_scores import ImageScores
from model_trainer.tasks.evaluation import Gallery, GalleryImage

__all__ = ["galleries_of_classes"]

# A report is one file that people send by mail, so the number of images is limited.
_MAX_IMAGES = 24
_MAX_CLASSES = 20
_PER_CLASS = 2


def galleries_of_classes(
    labels: np.ndarray, scores: ImageScores, confusion: ConfusionMatrix, classes: tuple[str, ...]
) -> list[Gallery]:
    """Returns the galleries that have images: confident mistakes, uncertain hits, worst and typical images by class.

    Args:
        labels: int `(num_images,)`, the true class of each image.
    """
    correct = scores.predicted == labels
    mistakes = _lowest(-scores.probability, scores.is_finite & ~correct, _MAX_IMAGES)
    hits = _lowest(scores.probability, correct, _MAX_IMAGES)
    worst, typical = [], []
    for index in _most_confused(confusion):
        own = np.flatnonzero((labels == index) & scores.is_finite)
        by_truth = own[np.argsort(scores.true_probability[own], kind="stable")]
        worst += [row for row in by_truth[:_PER_CLASS] if not correct[row]]
        # Typical images are in the middle of the hits, not at their end: most images look like these.
        own_hits = by_truth[correct[by_truth]]
        start = max(0, (len(own_hits) - _PER_CLASS) // 2)
        typical += list(own_hits[start : start + _PER_CLASS])

    def images(rows: np.ndarray | list[np.intp]) -> tuple[GalleryImage, ...]:
        return tuple(_image(int(row), labels, scores, classes) for row in rows)

    galleries = [
        Gallery(
            "confident_mistakes",
            "Most confident mistakes",
            "The wrong predictions with the highest probabilities. Look for wrong labels first, then for the cause.",
            images(mistakes),
        ),
        Gallery(
            "uncertain_hits",
            "Least confident correct predictions",
            "The model was right, but only just. More training images like these make it more confident.",
            images(hits),
        ),
        Gallery(
            "worst_by_class",
            "Worst images by class",
            "The images of each class whose true class got the lowest probability; the most confused classes first.",
            images(worst),
        ),
        Gallery(
            "typical_by_class",
            "Typical images by class",
            "Correct predictions of each class with a medium probability: what the model considers typical of the "
            "class.",
            images(typical),
        ),
    ]
    return [gallery for gallery in galleries if gallery.images]


def _most_confused(confusion: ConfusionMatrix) -> np.ndarray:
    """Returns the classes with the most mistakes, those with the most first; classes without images are left out."""
    counts = confusion.counts()
    mistakes = counts.support[0] - counts.hits[0]
    order = np.argsort(-mistakes, kind="stable")
    return order[counts.support[0][order] > 0][:_MAX_CLASSES]


def _lowest(values: np.ndarray, where: np.ndarray, limit: int) -> np.ndarray:
    """Returns the rows of the `limit` lowest values where `where` is True, in ascending order of the values."""
    rows = np.flatnonzero(where)
    return rows[np.argsort(values[rows], kind="stable")[:limit]]


def _image(row: int, labels: np.ndarray, scores: ImageScores, classes: tuple[str, ...]) -> GalleryImage:
    predicted, true = int(scores.predicted[row]), int(labels[row])
    caption = f"{classes[predicted]} {scores.probability[row]:.2f}"
    if predicted != true:
        caption += f", is {classes[true]} {scores.true_probability[row]:.2f}"
    return GalleryImage(row, predicted, caption)
