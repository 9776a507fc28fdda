"""Confidence intervals by the bootstrap: a metric on many random resamples of the images."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

__all__ = ["CONFIDENCE", "RESAMPLES", "bootstrap_interval", "bootstrap_of_cells", "num_resamples"]

RESAMPLES = 1000
CONFIDENCE = 0.95

_MIN_RESAMPLES = 200  # the ends of the interval then lie between the fifth and the sixth value from each side
_MAX_DRAWS = 100_000_000  # over all resamples, about a second
_BLOCK_BYTES = 32 << 20


def num_resamples(size: int, resamples: int = RESAMPLES) -> int:
    """Returns how many resamples to draw from `size` images (or cells): fewer if they are many, but at least 200.

    Example:
        >>> from model_trainer.metrics.bootstrap import num_resamples
        >>> num_resamples(500), num_resamples(200_000), num_resamples(1_000_000)
        (1000, 500, 200)
    """
    return min(resamples, max(_MIN_RESAMPLES, _MAX_DRAWS // max(size, 1)))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], num_images: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the percentile interval of a metric over resamples of the images, drawn with replacement.

    The resamples follow from `num_images` and `seed` alone, so two models can be compared on the same ones.

    Args:
        statistic: gets int32 `(b, num_images)`, how often each image is drawn in each of `b` resamples, and returns
            float `(b,)`, or `(b, k)` for several metrics. It is called for blocks of resamples.
        seed: the same seed gives the same interval.
        resamples: number of resamples; fewer are drawn if there are many images, see `num_resamples`.

    Returns:
        `(low, high)`, float64 `()` or `(k,)`. NaN without images, and for a metric that is NaN in every resample;
        resamples in which it is NaN do not count.

    Example:
        >>> from model_trainer.metrics.bootstrap import bootstrap_interval
        >>> correct = np.arange(100) < 90
        >>> low, high = bootstrap_interval(lambda counts: counts @ correct / 100, 100)
        >>> print(f"{low:.2f} to {high:.2f}")
        0.84 to 0.96
    """
    random = np.random.default_rng(seed)

    def draw(rows: int) -> np.ndarray:
        counts = np.empty((rows, num_images), np.int32)
        for row in counts:
            row[:] = np.bincount(random.integers(0, num_images, num_images), minlength=num_images)
        return counts

    return _interval(statistic, draw, num_images, num_images, resamples)


def bootstrap_of_cells(
    statistic: Callable[[np.ndarray], np.ndarray], cells: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the percentile interval of a metric that depends only on the counts in a table.

    Resampling the images makes the counts multinomial, which is much cheaper to draw when many images share a cell.

    Args:
        statistic: gets int64 `(b, k)`, the resampled counts, and returns float `(b,)` or `(b, m)`.
        cells: int `(k,)`, the number of images in each cell, such as the non-zero cells of a confusion matrix.
        seed, resamples: as in `bootstrap_interval`.

    Returns:
        `(low, high)`, as in `bootstrap_interval`.

    Example:
        >>> from model_trainer.metrics.bootstrap import bootstrap_of_cells
        >>> low, high = bootstrap_of_cells(lambda cells: cells[:, 0] / 100, np.array([90, 10]))
        >>> print(f"{low:.2f} to {high:.2f}")
        0.84 to 0.96
    """
    cells = np.asarray(cells, np.int64)
    total = int(cells.sum())
    random = np.random.default_rng(seed)
    fractions = cells / max(total, 1)
    return _interval(statistic, lambda rows: random.multinomial(total, fractions, rows), total, len(cells), resamples)


def _interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[int], np.ndarray],
    num_images: int,
    width: int,
    resamples: int,
) -> tuple[np.ndarray, np.ndarray]:
    if num_images == 0:
        undefined = np.full(np.shape(statistic(np.zeros((1, width), np.int32)))[1:], np.nan)
        return undefined, undefined.copy()
    resamples = num_resamples(width, resamples)
    rows = max(1, min(resamples, _BLOCK_BYTES // (8 * width)))
    blocks = [
        np.asarray(statistic(draw(min(rows, resamples - start))), np.float64) for start in range(0, resamples, rows)
    ]
    tail = (1.0 - CONFIDENCE) / 2.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)  # a metric that is undefined everywhere
        low, high = np.nanquantile(np.concatenate(blocks), [tail, 1.0 - tail], axis=0)
    return low, high
