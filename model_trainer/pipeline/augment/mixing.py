"""MixUp and CutMix: mix the images of a batch, and their targets by the same fraction.

Images are mixed with their neighbors: the first of a batch with the second, the third with the fourth, each by its own
random fraction. The result depends only on the position in the global batch, however many devices divide it, and a
process that reads only a shard of the batch needs at most one more image at either end. An image and its target stay
unchanged if it has no partner (the last of an odd batch), if it or its partner has weight 0, or if it is not drawn for
mixing. A target that is unknown (NaN) in one of the two is unknown in the mixture.

Fractions are drawn from Beta(alpha, alpha): with a small `alpha` most are close to 0 or 1, with 1 all are equally
likely.
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
    """Blends each image and its target with another of the batch; pixels are rounded once, half up.

    Each image keeps the larger of the two fractions. Otherwise, if the two fractions of a pair were close to 0 and 1,
    one image could appear twice in the batch, and the other not at all.

    Fields:
        alpha: of Beta(alpha, alpha), the distribution of the fractions.
        probability: fraction of the images it is applied to.

    Example:
        >>> images = np.array([0, 100], np.uint8).reshape(2, 1, 1, 1)
        >>> targets, weights = np.eye(2, dtype=np.float32), np.ones(2, np.float32)
        >>> images, targets = MixUp(alpha=0.5).apply_to_batch(images, targets, weights, seed=(0, 1))
        >>> images.numpy().ravel(), targets.numpy().round(2)
        (array([37, 73], dtype=uint8), array([[0.63, 0.37],
               [0.27, 0.73]], dtype=float32))

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
        fractions = _draw_fractions(stop, self.alpha, seed)[first:]
        own_fractions = tf.where(mixed, tf.maximum(fractions, 1 - fractions), 1.0)
        own = tf.cast(images, tf.float32)
        partner = tf.cast(_partners(images), tf.float32)
        fraction = own_fractions[:, None, None, None]
        return rounded(own * fraction + partner * (1 - fraction)), _blend_targets(targets, own_fractions)


@final
class CutMix(BatchAugmentation):
    """Pastes a rectangle of another image of the batch into each one, and blends targets by the fraction of its pixels.

    The rectangle has the image's aspect ratio and its center anywhere in the image; it is clipped to the image.

    Fields:
        alpha: of Beta(alpha, alpha), the distribution of the uncovered fraction, before rectangles are clipped.
        probability: fraction of the images it is applied to.

    Example:
        >>> images = np.repeat(np.array([0, 100], np.uint8), 4).reshape(2, 2, 2, 1)
        >>> targets, weights = np.eye(2, dtype=np.float32), np.ones(2, np.float32)
        >>> images, targets = CutMix().apply_to_batch(images, targets, weights, seed=(0, 1))
        >>> images[0].numpy()[..., 0], targets[0].numpy()
        (array([[100,   0],
               [  0,   0]], dtype=uint8), array([0.75, 0.25], dtype=float32))

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
        rows = _covered_pixels(chance[:, 1], side, height) & mixed[:, None]
        columns = _covered_pixels(chance[:, 2], side, width)
        pasted = tf.reduce_sum(tf.cast(rows, tf.int32), 1) * tf.reduce_sum(tf.cast(columns, tf.int32), 1)
        own_fractions = tf.cast(1 - pasted / (height * width), tf.float32)

        lines = tf.reshape(images, (-1, height, width * images.shape[-1]))  # 4 dimensions take twice as long
        columns = tf.repeat(columns, images.shape[-1], axis=1)
        mixture = tf.where(rows[:, :, None] & columns[:, None, :], _partners(lines), lines)
        mixture = tf.ensure_shape(tf.reshape(mixture, tf.shape(images)), images.shape)
        return mixture, _blend_targets(targets, own_fractions)


def _partners(values: tf.Tensor) -> tf.Tensor:
    """Replaces each row by the row of its partner; a row without a partner stays."""
    import tensorflow as tf

    position = tf.range(tf.shape(values)[0])
    neighbor = tf.bitwise.bitwise_xor(position, 1)
    return tf.gather(values, tf.where(neighbor < tf.shape(values)[0], neighbor, position))


def _is_mixed(weights: tf.Tensor, is_drawn: tf.Tensor) -> tf.Tensor:
    """bool `(batch,)`: which of the drawn images are mixed: those with a partner, if neither of them has weight 0."""
    import tensorflow as tf

    position = tf.range(tf.shape(weights)[0])
    has_weight = weights > MIN_WEIGHT
    return is_drawn & (position != _partners(position)) & has_weight & _partners(has_weight)


def _draw_fractions(count: tf.Tensor, alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """float32 `(count,)`: the fraction that each image keeps of itself, from Beta(alpha, alpha)."""
    import tensorflow as tf

    # Beta(a, a) is X / (X + Y) for two draws from Gamma(a). In float32 both may underflow to 0.
    gammas = tf.random.stateless_gamma(
        (count, 2),
        tf.random.experimental.stateless_fold_in(seed, 1),
        alpha=tf.constant(alpha, tf.float64),
        dtype=tf.float64,
    )
    return tf.cast(gammas[:, 0] / (gammas[:, 0] + gammas[:, 1]), tf.float32)


def _covered_pixels(chance: tf.Tensor, side: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """bool `(batch, length)`: which pixels of a side are covered.

    Args:
        chance: float32 `(batch,)`, the center, as a fraction of `length`.
        side: float32 `(batch,)`, the covered length, as a fraction of `length`.
        length: int32 `()`, of the side, in pixels.
    """
    import tensorflow as tf

    pixels = tf.cast(length, tf.float32)
    start = tf.round((chance - side / 2) * pixels)
    stop = start + tf.round(side * pixels)
    position = tf.range(pixels)
    return (position >= start[:, None]) & (position < stop[:, None])


def _blend_targets(targets: tf.Tensor, own_fractions: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    fraction = own_fractions[:, None]
    blended = targets * fraction + _partners(targets) * (1 - fraction)
    return tf.where(fraction < 1, blended, targets)  # 0 * NaN is NaN: an unmixed image must ignore its partner's target
