from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import (
    Augmentation,
    CutMix,
    MixUp,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomZoom,
    augment_image,
    split_augment,
)

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (14, 9, 1)).astype(np.uint8)
SEED = tf.constant([3, 4])


def seed_of(position: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(SEED, position)


def test_two_augmentations_of_one_kind_draw_different_values() -> None:
    twice = (RandomFlip(), RandomFlip())
    images = [augment_image(tf.constant(IMAGE), twice, tf.constant([0, number])).numpy() for number in range(40)]
    assert any(np.array_equal(image, IMAGE[:, ::-1]) for image in images)


def test_neighboring_geometric_augmentations_interpolate_once() -> None:
    moves = (RandomRotation(degrees=90), RandomZoom(factor=0.5))
    first, second = (
        move.matrix(tf.constant(14.0), tf.constant(9.0), seed_of(number)).numpy().astype(np.float64)
        for number, move in enumerate(moves, start=1)
    )
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # SciPy takes (y, x)
    expected = scipy.ndimage.affine_transform(
        NOISE[..., 0].astype(float), swap @ first @ second @ swap, order=1, mode="nearest"
    )
    ours = augment_image(tf.constant(NOISE), moves, SEED).numpy()[..., 0]
    assert np.abs(ours - expected).max() <= 0.51


def test_geometric_augmentations_with_different_fill_modes_are_applied_one_by_one() -> None:
    moves = (RandomRotation(degrees=90), RandomZoom(factor=0.5, fill_mode="constant"))
    expected = moves[1].apply(moves[0].apply(tf.constant(NOISE), seed_of(1)), seed_of(2))
    np.testing.assert_array_equal(augment_image(tf.constant(NOISE), moves, SEED), expected)


def test_augmentations_are_split_into_their_stages() -> None:
    crop, flip, zoom, mix_up, cut_mix = RandomResizedCrop(), RandomFlip(), RandomZoom(), MixUp(), CutMix()
    assert split_augment((crop, flip, zoom, mix_up, cut_mix)) == (crop, (flip, zoom), (mix_up, cut_mix))
    assert split_augment((mix_up,)) == (None, (), (mix_up,))
    assert split_augment(()) == (None, (), ())


@pytest.mark.parametrize("first", [RandomFlip(), RandomResizedCrop(), MixUp()])
def test_a_crop_that_does_not_come_first_is_refused(first: Augmentation) -> None:
    with pytest.raises(
        ConfigError, match="has RandomResizedCrop at position 1; only one crop is allowed, and it must come"
    ):
        split_augment((first, RandomResizedCrop()))


def test_an_augmentation_of_single_images_is_refused_after_one_that_mixes_them() -> None:
    with pytest.raises(
        ConfigError, match="has RandomFlip at position 2, after MixUp; augmentations that mix the images"
    ):
        split_augment((RandomZoom(), MixUp(), RandomFlip(), CutMix()))
