"""Class sampling: each image once per epoch, or each class with a chosen fraction of the epoch.

With fractions every epoch still has as many images as there are examples, divided exactly over the classes. Each class
has its own shuffled order of its images and starts a new one when all have been shown, also across epochs. So the
counts of two images of a class never differ by more than one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from model_trainer.config import Choice
from model_trainer.sources.examples import Examples

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["EachOnce", "EffectiveNumber", "Equiprobable", "PowerOfCount", "Sampling", "make_sampler", "quotas"]


class Sampling(Choice):
    """Which images an epoch of training contains; a field of `Training`."""

    @abstractmethod
    def relative_frequencies(self, counts: np.ndarray) -> np.ndarray | None:
        """The frequency of each class in an epoch; only their ratios count.

        Args:
            counts: int64 `(num_classes,)`, images of each class, all above 0.

        Returns:
            float64 `(num_classes,)`, or None if each image is shown once.
        """


@final
class EachOnce(Sampling):
    """Each image once per epoch; the default."""

    def relative_frequencies(self, counts: np.ndarray) -> np.ndarray | None:
        return None


@final
class Equiprobable(Sampling):
    """Samples each class equally often; images of small classes are repeated.

    The same as keras-trainer's `iterator_mode="equiprobable"`.

    Example:
        >>> Equiprobable().relative_frequencies(np.array([900, 100]))  # images of two classes
        array([1., 1.])
    """

    def relative_frequencies(self, counts: np.ndarray) -> np.ndarray:
        return np.ones(len(counts))


@final
class PowerOfCount(Sampling):
    """Samples each class in proportion to count^power.

    Fields:
        power: 1 is as often as in the data, 0 equally often; 0.5 lies between.

    Example:
        >>> PowerOfCount(0.5).relative_frequencies(np.array([900, 100]))  # 3 to 1 instead of 9 to 1
        array([30., 10.])

    Source: https://arxiv.org/abs/1805.00932
    """

    power: float = Field(0.5, ge=0, le=1)

    def relative_frequencies(self, counts: np.ndarray) -> np.ndarray:
        return counts.astype(np.float64) ** self.power


@final
class EffectiveNumber(Sampling):
    """Samples each image in proportion to 1 / the effective number of its class, (1 - beta^count) / (1 - beta).

    Fields:
        beta: 0 is as often as in the data; close to 1, classes become equally frequent.

    Example:
        >>> frequencies = EffectiveNumber(beta=0.999).relative_frequencies(np.array([900, 100]))
        >>> (frequencies / frequencies.sum()).round(2)
        array([0.59, 0.41])

    Source: https://arxiv.org/abs/1901.05555
    """

    beta: float = Field(0.999, ge=0, lt=1)

    def relative_frequencies(self, counts: np.ndarray) -> np.ndarray:
        return counts * (1.0 - self.beta) / (1.0 - self.beta**counts)


def quotas(frequencies: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` in proportion to `frequencies` into integers, by the largest-remainder method.

    Args:
        frequencies: float64 `(num_classes,)`, above 0.
        total: the sum of the result.

    Returns:
        int64 `(num_classes,)`.
    """
    exact = frequencies / frequencies.sum() * total
    counts = np.floor(exact).astype(np.int64)
    largest_remainders = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[largest_remainders] += 1
    return counts


def make_sampler(
    examples: Examples, sampling: Sampling, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """The function that maps an epoch and a shuffled position in it, both int64 `()`, to the index of an example.

    An image with several labels counts for each of them; images without any form a class of their own.

    Returns:
        None if each example is shown once.
    """
    if isinstance(sampling, EachOnce):
        return None  # avoids sorting the labels of 50 million images
    starts, members = _members(examples)
    counts = np.diff(starts)
    frequencies = sampling.relative_frequencies(counts)
    if frequencies is None:
        return None
    import tensorflow as tf

    from model_trainer.pipeline.order import shuffled_index

    per_class = quotas(frequencies, len(examples))
    ends = tf.constant(np.cumsum(per_class))
    quota, count, first = tf.constant(per_class), tf.constant(counts), tf.constant(starts[:-1])
    rows = tf.constant(members)
    fold_in = tf.random.experimental.stateless_fold_in

    def sample(epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        label = tf.searchsorted(ends, position[None], side="right")[0]
        within = position - (ends[label] - quota[label])
        num_drawn = epoch * quota[label] + within  # of this class, since the run started
        cycle, step = num_drawn // count[label], num_drawn % count[label]
        words = fold_in(fold_in(tf.constant([seed, 0x736D], tf.int32), label), tf.cast(cycle, tf.int32))
        words = tf.random.stateless_uniform([3], words, minval=None, maxval=None, dtype=tf.uint32)
        return rows[first[label] + shuffled_index(step, words, count[label])]

    return sample


def _members(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """`(starts, rows)`: the examples of each non-empty class, one class after the other."""
    labels = examples.label_rows()
    if labels.exclusive:
        classes, rows = labels.most_likely(), np.arange(len(examples))
    else:
        positive = labels.values >= 0.5
        classes, rows = labels.classes[positive], labels.row_of_entry()[positive]
        unlabeled = np.setdiff1d(np.arange(len(examples)), rows)
        classes = np.concatenate([classes, np.full(len(unlabeled), len(examples.classes), np.int32)])
        rows = np.concatenate([rows, unlabeled])
    order = np.argsort(classes, kind="stable")
    _, counts = np.unique(classes, return_counts=True)
    return np.concatenate([[0], np.cumsum(counts)]), rows[order].astype(np.int64)
