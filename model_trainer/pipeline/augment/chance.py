"""Random numbers for augmentations: uniform draws, and what they are converted to.

Each augmentation takes all its draws from one call of `tf.random.stateless_uniform`, because a call costs more than the
numbers themselves. The functions here convert them to lengths, positions and decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Number", "Probability", "between", "draw", "draw_integer", "sometimes"]

Number: TypeAlias = "tf.Tensor | float"  # random or declared, float32 `()`
Probability = Annotated[float, Field(ge=0, le=1)]


def draw(seed: tf.Tensor, *shape: int | tf.Tensor) -> tf.Tensor:
    """float32 of `shape`, uniform in [0, 1)."""
    import tensorflow as tf

    return tf.random.stateless_uniform(shape, seed)


def between(chance: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Maps a uniform draw to a number from `low` to `high`."""
    return low + chance * (high - low)


def draw_integer(chance: tf.Tensor, max_value: tf.Tensor | int) -> tf.Tensor:
    """Maps a uniform draw to an int32 from 0 to `max_value`, each equally likely."""
    import tensorflow as tf

    number = tf.cast(tf.floor(chance * tf.cast(max_value + 1, tf.float32)), tf.int32)
    return tf.minimum(number, max_value)  # the product may round up if `max_value` is very large


def sometimes(
    probability: float, chance: tf.Tensor, image: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """`change(image)` with `probability`, otherwise `image`; `change` is computed only if it is drawn."""
    import tensorflow as tf

    if probability == 0:
        return image
    if probability == 1:
        return change(image)
    return tf.cond(chance < probability, lambda: change(image), lambda: image)
