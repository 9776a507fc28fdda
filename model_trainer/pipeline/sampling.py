"""How often each class is shown: once each image, or by chosen shares of the classes.

With shares every epoch has as many images as there are examples, divided over the classes to the last image. Each
class goes through its own images in an order of its own and begins anew when it is through, also across epochs, so that
of two images of a class neither is shown more than once more often than the other.
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
    """Which images an epoch shows."""

    @abstractmethod
    def shares(self, counts: np.ndarray) -> np.ndarray | None:
        """float64 `(num_classes,)`: how much of an epoch each class gets, up to a common factor.

        Args:
            counts: int64 `(num_classes,)`, images of each class, all above 0.

        Returns:
            None where each image is shown once.
        """


@final
class EachOnce(Sampling):
    """Each image once in an epoch."""

    def shares(self, counts: np.ndarray) -> np.ndarray | None:
        return None


@final
class Equiprobable(Sampling):
    """Each class equally often; images of small classes are repeated. keras-trainer's `iterator_mode`."""

    def shares(self, counts: np.ndarray) -> np.ndarray:
        return np.ones(len(counts))


@final
class PowerOfCount(Sampling):
    """Each class by count^power: 1 as often as it comes, 0 equally often, 0.5 between. arXiv:1805.00932"""

    power: float = Field(0.5, ge=0, le=1)

    def shares(self, counts: np.ndarray) -> np.ndarray:
        return counts.astype(np.float64) ** self.power


@final
class EffectiveNumber(Sampling):
    """Each image by 1 / effective number of its class, (1 - beta^count) / (1 - beta). arXiv:1901.05555"""

    beta: float = Field(0.999, ge=0, lt=1)

    def shares(self, counts: np.ndarray) -> np.ndarray:
        return counts * (1.0 - self.beta) / (1.0 - self.beta**counts)


def quotas(shares: np.ndarray, total: int) -> np.ndarray:
    """int64: `total` divided by `shares` into whole numbers, the largest remainders rounded up."""
    wanted = shares / shares.sum() * total
    whole = np.floor(wanted).astype(np.int64)
    most = np.argsort(whole - wanted, kind="stable")[: total - whole.sum()]
    whole[most] += 1
    return whole


def make_sampler(
    examples: Examples, sampling: Sampling, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """A function from an epoch and a place of it, both int64 `()`, to the example shown there; None shows each once.

    The place is the shuffled one. Of several labels each counts; images without any form a class of their own.
    """
    if isinstance(sampling, EachOnce):
        return None  # without sorting the labels of 50 million images
    starts, members = _members(examples)
    counts = np.diff(starts)
    shares = sampling.shares(counts)
    if shares is None:
        return None
    import tensorflow as tf

    from model_trainer.pipeline.order import shuffled_index

    of_class = quotas(shares, len(examples))
    ends = tf.constant(np.cumsum(of_class))
    quota, count, first = tf.constant(of_class), tf.constant(counts), tf.constant(starts[:-1])
    rows = tf.constant(members)
    fold_in = tf.random.experimental.stateless_fold_in

    def sample(epoch: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        label = tf.searchsorted(ends, place[None], side="right")[0]
        within = place - (ends[label] - quota[label])
        walked = epoch * quota[label] + within
        turn, step = walked // count[label], walked % count[label]
        words = fold_in(fold_in(tf.constant([seed, 0x736D], tf.int32), label), tf.cast(turn, tf.int32))
        words = tf.random.stateless_uniform([3], words, minval=None, maxval=None, dtype=tf.uint32)
        return rows[first[label] + shuffled_index(step, words, count[label])]

    return sample


def _members(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """`(starts, rows)`: the examples of each class that has any, one class after the other."""
    labels = examples.label_rows()
    if labels.exclusive:
        classes, rows = labels.most_likely(), np.arange(len(examples))
    else:
        has_it = labels.values >= 0.5
        classes, rows = labels.classes[has_it], labels.row_of_entry()[has_it]
        without = np.setdiff1d(np.arange(len(examples)), rows)
        classes = np.concatenate([classes, np.full(len(without), len(examples.classes), np.int32)])
        rows = np.concatenate([rows, without])
    order = np.argsort(classes, kind="stable")
    _, counts = np.unique(classes, return_counts=True)
    return np.concatenate([[0], np.cumsum(counts)]), rows[order].astype(np.int64)
