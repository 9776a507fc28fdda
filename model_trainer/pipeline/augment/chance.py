"""From even draws to what is drawn.

Each augmentation takes all its draws from one call of `tf.random.stateless_uniform`, which costs more than the numbers
themselves, and turns them into lengths, places and decisions here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Number", "Probability", "between", "draw", "draw_integer", "sometimes"]

Number: TypeAlias = "tf.Tensor | float"  # drawn or declared, float32 `()`
Probability = Annotated[float, Field(ge=0, le=1)]


def draw(seed: tf.Tensor, *shape: int | tf.Tensor) -> tf.Tensor:
    """float32 of `shape`, each evenly from 0 to 1, without 1."""
    import tensorflow as tf

    return tf.random.stateless_uniform(shape, seed)


def between(chance: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """A number from `low` to `high`."""
    return low + chance * (high - low)


def draw_integer(chance: tf.Tensor, largest: tf.Tensor | int) -> tf.Tensor:
    """int32: a whole number from 0 to `largest`, each equally likely."""
    import tensorflow as tf

    number = tf.cast(tf.floor(chance * tf.cast(largest + 1, tf.float32)), tf.int32)
    return tf.minimum(number, largest)  # chance rounds up to 1 where there are very many


def sometimes(
    probability: float, chance: tf.Tensor, image: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """`change(image)` with `probability`, otherwise `image`; what is not drawn is not computed."""
    import tensorflow as tf

    if probability == 0:
        return image
    if probability == 1:
        return change(image)
    return tf.cond(chance < probability, lambda: change(image), lambda: image)
