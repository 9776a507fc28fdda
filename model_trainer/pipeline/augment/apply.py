"""From the declared augmentations to the stages of the pipeline, and the stage for one image and its points."""

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
    """Where each augmentation happens.

    Attributes:
        crop: in the decoder.
        image: after it, to one image.
        batch: last, to the whole batch.
    """

    crop: Crop | None
    image: tuple[Augmentation, ...]
    batch: tuple[BatchAugmentation, ...]


def augment_image(image: tf.Tensor, augment: Sequence[Augmentation], seed: tf.Tensor) -> tf.Tensor:
    """Applies all of `augment` in order; each gets a seed of its own from `seed`, int32 `(2,)`.

    Rotation, zoom, shift and shear that follow each other and fill alike become one movement of the pixels, which is
    faster and sharper than one after the other.
    """
    for how, group in itertools.groupby(_seeded(augment, seed), key=lambda pair: _resampling_of(pair[0])):
        if how is not None:
            image = apply_affine(image, [(one, own) for one, own in group if isinstance(one, Affine)])
            continue
        for one, own in group:
            image = one.apply(image, own)
    return image


def augment_transform(height: Number, width: Number, augment: Sequence[Augmentation], seed: tf.Tensor) -> tf.Tensor:
    """float32 `(3, 3)`: where `augment_image` with the same seed moves points; see `augment.transform`.

    Args:
        height, width: numbers or scalars of any type, of the image, which keeps its size.
        augment: what changes single images, without a crop.
        seed: int32 `(2,)`.

    Example:
        >>> image = augment_image(view(pixels, part, seed), augment, seed)
        >>> moved = compose(view.transform(part, seed), augment_transform(height, width, augment, seed))
        >>> boxes = move_boxes(boxes, moved, height, width)
    """
    import tensorflow as tf

    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    return compose(*(one.transform(height, width, own) for one, own in _seeded(augment, seed)))


def split_augment(augment: Sequence[Augmentation]) -> Stages:
    """The stages, each in the declared order.

    Raises:
        ConfigError: a crop stands anywhere but first, or what changes one image after what changes a batch.
    """
    crop, rest = _split_crop(augment)
    batch = tuple(one for one in rest if isinstance(one, BatchAugmentation))
    image = tuple(one for one in rest if not isinstance(one, BatchAugmentation))
    for position, (before, after) in enumerate(itertools.pairwise(augment), start=1):
        if isinstance(before, BatchAugmentation) and not isinstance(after, BatchAugmentation):
            raise ConfigError(
                f"has {type(after).__name__} at position {position}, after {type(before).__name__}; "
                "what mixes the images of a batch comes last."
            )
    return Stages(crop, image, batch)


def _split_crop(augment: Sequence[Augmentation]) -> tuple[Crop | None, tuple[Augmentation, ...]]:
    """The crop, which decoding takes over, and the rest.

    Raises:
        ConfigError: a crop stands anywhere but first.
    """
    crops = [position for position, augmentation in enumerate(augment) if isinstance(augmentation, Crop)]
    if any(crops):
        raise ConfigError(
            f"has {type(augment[crops[-1]]).__name__} at position {crops[-1]}; one crop may stand there, and first."
        )
    first = augment[0] if augment else None
    return (first, tuple(augment[1:])) if isinstance(first, Crop) else (None, tuple(augment))


def _seeded(augment: Sequence[Augmentation], seed: tf.Tensor) -> list[tuple[Augmentation, tf.Tensor]]:
    import tensorflow as tf

    fold_in = tf.random.experimental.stateless_fold_in
    return [(one, fold_in(seed, position)) for position, one in enumerate(augment, start=1)]  # 0 is the crop's


def _resampling_of(augmentation: Augmentation) -> Resampling | None:
    return augmentation.resampling if isinstance(augmentation, Affine) else None
