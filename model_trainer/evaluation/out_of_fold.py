"""Predictions for a whole data set, each image by the model of the fold that did not train on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_trainer.evaluation.predictions import Predictions
from model_trainer.sources.examples import Examples
from model_trainer.storage.arrays import RowWriter

__all__ = ["FoldPredictions", "OutOfFold", "combine"]

ROWS_PER_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """The predictions of a fold's model for its validation data.

    Attributes:
        predictions: of the images that could be read.
        rows: int64 `(num_images,)`, the row of each of them in the whole data set.
        thresholds: of the model; None if its task fits none.
    """

    predictions: Predictions
    rows: np.ndarray
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions.

    Attributes:
        predictions: of all images that could be read, in the order of the data set.
        folds: int32 `(num_images,)`, the fold that predicted each of them, counted from 1.
        thresholds: the mean of the folds' thresholds; None if the task fits none.
    """

    predictions: Predictions
    folds: np.ndarray
    thresholds: tuple[float, ...] | None


def combine(examples: Examples, folds: Sequence[FoldPredictions | None]) -> OutOfFold:
    """Combines the predictions of all folds.

    Args:
        examples: the whole data set.
        folds: the predictions of each fold; no row is in two of them. None for a fold without a readable image; at
            least one fold has predictions.
    """
    numbered = [(number, fold) for number, fold in enumerate(folds) if fold is not None]
    rows = np.concatenate([fold.rows for _, fold in numbered])
    fold_of = np.concatenate([np.full(len(fold.rows), number, np.int32) for number, fold in numbered])
    position = np.concatenate([np.arange(len(fold.rows)) for _, fold in numbered])
    order = np.argsort(rows)
    num_classes = numbered[0][1].predictions.probabilities.shape[1]
    table = RowWriter(num_classes, len(order))
    for start in range(0, len(order), ROWS_PER_CHUNK):
        chunk = order[start : start + ROWS_PER_CHUNK]
        probabilities = np.empty((len(chunk), num_classes), np.float32)
        for number, fold in numbered:
            is_here = fold_of[chunk] == number
            probabilities[is_here] = fold.predictions.probabilities[position[chunk[is_here]]]
        table.append(probabilities)
    thresholds = [fold.thresholds for _, fold in numbered if fold.thresholds is not None]
    return OutOfFold(
        Predictions(
            examples=examples.take(rows[order]).with_equal_weights(),
            rows=rows[order],
            probabilities=table.finish(),
            num_bad=len(examples) - len(order),
        ),
        folds=fold_of[order] + 1,
        thresholds=tuple(np.mean(thresholds, axis=0).tolist()) if thresholds else None,
    )
