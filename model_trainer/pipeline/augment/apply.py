"""Splits the declared augmentations into the stages of the pipeline, and applies those of single images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment.affine import Affine, Resampling, apply_affine
from model_trainer.pipeline.augment.augmentation import Augmentation, BatchAugmentation, Crop
from model_trainer.pipeline.augment.chance import Number
from model_trainer.pipeline.augment.transform import compose

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Stages", "augment_image", "augment_transform", "split_augment"]


class Stages(NamedTuple):
    """The declared augmentations, by the stage of the pipeline that applies them.

    Attributes:
        crop: applied by the decoder.
        image: applied to each image, after decoding.
        batch: applied to the batch, last.
    """

    crop: Crop | None
    image: tuple[Augmentation, ...]
    batch: tuple[BatchAugmentation, ...]


def augment_image(image: tf.Tensor, augment: Sequence[Augmentation], seed: tf.Tensor) -> tf.Tensor:
    """Applies all of `augment` to one image, in order.

    Consecutive rotations, zooms, shifts and shears with the same `Resampling` are applied in one step, which is faster
    and sharper than several.

    Args:
        image: uint8 `(height, width, channels)`.
        augment: augmentations of single images, without a crop.
        seed: int32 `(2,)`; each augmentation gets its own seed derived from it.

    Returns:
        uint8 of the same shape.
    """
    for resampling, group in itertools.groupby(_seeded(augment, seed), key=lambda pair: _resampling_of(pair[0])):
        if resampling is not None:
            image = apply_affine(image, [(each, own_seed) for each, own_seed in group if isinstance(each, Affine)])
            continue
        for each, own_seed in group:
            image = each.apply(image, own_seed)
    return image


def augment_transform(height: Number, width: Number, augment: Sequence[Augmentation], seed: tf.Tensor) -> tf.Tensor:
    """float32 `(3, 3)`: where `augment_image` with the same seed moves points; see `augment.transform`.

    Args:
        height, width: of the image, which keeps its size: numbers or scalar tensors of any dtype.
        augment: augmentations of single images, without a crop.
        seed: int32 `(2,)`.

    Example:
        >>> from model_trainer.pipeline.augment import move_boxes
        >>> augment, seed = [RandomFlip(), RandomRotation()], (0, 1)
        >>> image = augment_image(np.zeros((20, 40, 3), np.uint8), augment, seed)
        >>> transform = augment_transform(20, 40, augment, seed)
        >>> move_boxes(np.array([[2, 4, 12, 14]], np.float32), transform, 20, 40).shape
        TensorShape([1, 4])
    """
    import tensorflow as tf

    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    return compose(*(each.transform(height, width, own_seed) for each, own_seed in _seeded(augment, seed)))


def split_augment(augment: Sequence[Augmentation]) -> Stages:
    """Splits `augment` into stages; each keeps the declared order.

    Raises:
        ConfigError: a crop is not the first augmentation, or an image augmentation follows a batch augmentation.
    """
    crop, rest = _split_crop(augment)
    batch = tuple(each for each in rest if isinstance(each, BatchAugmentation))
    image = tuple(each for each in rest if not isinstance(each, BatchAugmentation))
    for position, (before, after) in enumerate(itertools.pairwise(augment), start=1):
        if isinstance(before, BatchAugmentation) and not isinstance(after, BatchAugmentation):
            raise ConfigError(
                f"has {type(after).__name__} at position {position}, after {type(before).__name__}; "
                "augmentations that mix the images of a batch must come last."
            )
    return Stages(crop, image, batch)


def _split_crop(augment: Sequence[Augmentation]) -> tuple[Crop | None, tuple[Augmentation, ...]]:
    """The crop, which the decoder applies, and the remaining augmentations.

    Raises:
        ConfigError: a crop is not the first augmentation.
    """
    crops = [position for position, augmentation in enumerate(augment) if isinstance(augmentation, Crop)]
    if any(crops):
        raise ConfigError(
            f"has {type(augment[crops[-1]]).__name__} at position {crops[-1]}; only one crop is allowed, and it must "
            "come first."
        )
    first = augment[0] if augment else None
    return (first, tuple(augment[1:])) if isinstance(first, Crop) else (None, tuple(augment))


def _seeded(augment: Sequence[Augmentation], seed: tf.Tensor) -> list[tuple[Augmentation, tf.Tensor]]:
    import tensorflow as tf

    fold_in = tf.random.experimental.stateless_fold_in
    return [(each, fold_in(seed, position)) for position, each in enumerate(augment, start=1)]  # 0 is the crop's


def _resampling_of(augmentation: Augmentation) -> Resampling | None:
    return augmentation.resampling if isinstance(augmentation, Affine) else None
