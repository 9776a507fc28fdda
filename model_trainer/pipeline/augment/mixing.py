"""Mixing the images of a batch, and their targets by the same share.

Images are mixed with their neighbours: the first of a batch with the second, the third with the fourth, each by a share
drawn for it alone. So what happens follows from the position in the whole batch, however many devices share it, and a
machine that reads only a part of the batch needs one image more at either end at most. An image stays as it is, with
its target, where it has no partner (the last of an odd batch), where it or its partner has weight 0, and where mixing
is not drawn. A target that is unknown (NaN) in one of the two is unknown in the mixture.

Shares are from Beta(alpha, alpha): with a small `alpha` most are nearly 0 or 1, with 1 all are equally likely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pydantic import Field

from model_trainer.pipeline.augment.augmentation import MIN_WEIGHT, BatchAugmentation
from model_trainer.pipeline.augment.chance import Probability, draw
from model_trainer.pipeline.augment.pixels import rounded

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["CutMix", "MixUp"]


@final
class MixUp(BatchAugmentation):
    """Blends each image and its target with another of the batch; pixels are rounded once, halves up.

    Each image keeps the larger of the two shares. Otherwise a pair of nearly 0 and nearly 1 would show one of the two
    twice in a batch, and the other not at all.

    Fields:
        alpha: of the shares' Beta(alpha, alpha).
        probability: share of the images that it happens to.

    Source: https://arxiv.org/abs/1710.09412
    """

    alpha: float = Field(0.2, ge=0.01, le=100)
    probability: Probability = 1.0

    def apply_to_batch(
        self, images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor, first: tf.Tensor | int = 0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        stop = first + tf.shape(weights)[0]
        mixed = _is_mixed(weights, draw(seed, stop)[first:] < self.probability)
        shares = _draw_fractions(stop, self.alpha, seed)[first:]
        kept = tf.where(mixed, tf.maximum(shares, 1 - shares), 1.0)
        own = tf.cast(images, tf.float32)
        other = tf.cast(_partners(images), tf.float32)
        share = kept[:, None, None, None]
        return rounded(own * share + other * (1 - share)), _blend_targets(targets, kept)


@final
class CutMix(BatchAugmentation):
    """Pastes a rectangle of another image of the batch into each one, and blends targets by the share of its pixels.

    The rectangle has the image's proportions and its centre anywhere in the image; what reaches beyond is cut off.

    Fields:
        alpha: of the Beta(alpha, alpha) from which the uncovered share comes, before rectangles are cut off.
        probability: share of the images that it happens to.

    Source: https://arxiv.org/abs/1905.04899
    """

    alpha: float = Field(1.0, ge=0.01, le=100)
    probability: Probability = 1.0

    def apply_to_batch(
        self, images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor, first: tf.Tensor | int = 0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        stop = first + tf.shape(weights)[0]
        chance = draw(seed, stop, 3)[first:]
        mixed = _is_mixed(weights, chance[:, 0] < self.probability)
        side = tf.sqrt(1 - _draw_fractions(stop, self.alpha, seed)[first:])
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        rows = _stretch(chance[:, 1], side, height) & mixed[:, None]
        columns = _stretch(chance[:, 2], side, width)
        pasted = tf.reduce_sum(tf.cast(rows, tf.int32), 1) * tf.reduce_sum(tf.cast(columns, tf.int32), 1)
        kept = tf.cast(1 - pasted / (height * width), tf.float32)

        lines = tf.reshape(images, (-1, height, width * images.shape[-1]))  # 4 dimensions take twice as long
        columns = tf.repeat(columns, images.shape[-1], axis=1)
        pasted_in = tf.where(rows[:, :, None] & columns[:, None, :], _partners(lines), lines)
        return tf.ensure_shape(tf.reshape(pasted_in, tf.shape(images)), images.shape), _blend_targets(targets, kept)


def _partners(values: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    position = tf.range(tf.shape(values)[0])
    neighbour = tf.bitwise.bitwise_xor(position, 1)
    return tf.gather(values, tf.where(neighbour < tf.shape(values)[0], neighbour, position))


def _is_mixed(weights: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    """bool `(batch,)`: which of the `drawn` images have a partner."""
    import tensorflow as tf

    position = tf.range(tf.shape(weights)[0])
    counts = weights > MIN_WEIGHT
    return drawn & (position != _partners(position)) & counts & _partners(counts)


def _draw_fractions(count: tf.Tensor, alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """float32 `(count,)`: from Beta(alpha, alpha), what each image keeps of itself."""
    import tensorflow as tf

    # A Beta is one of two Gammas' share of their sum. In float32 both may fall below the smallest number.
    gammas = tf.random.stateless_gamma(
        (count, 2),
        tf.random.experimental.stateless_fold_in(seed, 1),
        alpha=tf.constant(alpha, tf.float64),
        dtype=tf.float64,
    )
    return tf.cast(gammas[:, 0] / (gammas[:, 0] + gammas[:, 1]), tf.float32)


def _stretch(chance: tf.Tensor, side: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """bool `(batch, length)`: which pixels of a side are covered.

    Args:
        chance: float32 `(batch,)`, where the middle lies, as a share of `length`.
        side: float32 `(batch,)`, the share of `length` that is covered.
    """
    import tensorflow as tf

    pixels = tf.cast(length, tf.float32)
    start = tf.round((chance - side / 2) * pixels)
    stop = start + tf.round(side * pixels)
    place = tf.range(pixels)
    return (place >= start[:, None]) & (place < stop[:, None])


def _blend_targets(targets: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    share = kept[:, None]
    blended = targets * share + _partners(targets) * (1 - share)
    return tf.where(share < 1, blended, targets)  # 0 times NaN is NaN: an unmixed image takes nothing from its partner
