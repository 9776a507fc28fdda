from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model_trainer import RandomFlip, RandomResizedCrop
from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import augment_image, split_crop

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def boxes(crop: RandomResizedCrop, height: int, width: int, count: int = 300) -> np.ndarray:
    make = tf.function(lambda seed: crop.box(tf.constant(height), tf.constant(width), seed))
    return np.stack([make(tf.constant([7, number])) for number in range(count)])


@pytest.mark.parametrize(("height", "width"), [(100, 100), (400, 300), (1, 1), (2000, 3), (3, 2000)])
def test_a_crop_lies_inside_the_image(height: int, width: int) -> None:
    top, left, crop_height, crop_width = boxes(RandomResizedCrop(), height, width).T
    assert (crop_height >= 1).all()
    assert (crop_width >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + crop_height <= height).all()
    assert (left + crop_width <= width).all()


def test_a_crop_has_the_declared_area_and_ratio() -> None:
    _, _, height, width = boxes(RandomResizedCrop(area=(0.2, 0.5), ratio=(0.8, 1.25)), 1000, 1000).T
    share = height * width / 1e6
    assert share.min() == pytest.approx(0.2, abs=0.01)
    assert share.max() == pytest.approx(0.5, abs=0.01)
    assert (width / height).min() == pytest.approx(0.8, abs=0.01)
    assert (width / height).max() == pytest.approx(1.25, abs=0.01)


def test_crops_reach_every_corner() -> None:
    top, left, height, width = boxes(RandomResizedCrop(area=(0.3, 0.3), ratio=(1.0, 1.0)), 10, 10).T
    assert {int(place) for place in top} == set(range(10 - int(height[0]) + 1))
    assert {int(place) for place in left} == set(range(10 - int(width[0]) + 1))


@pytest.mark.parametrize(("options", "axis"), [({"vertical": False}, 1), ({"horizontal": False, "vertical": True}, 0)])
def test_a_flip_mirrors_half_of_the_images(options: dict[str, bool], axis: int) -> None:
    flip = tf.function(lambda seed: RandomFlip(**options).apply(IMAGE, seed))
    images = [flip(tf.constant([1, number])).numpy() for number in range(400)]
    mirrored = np.flip(IMAGE, axis)
    assert all(np.array_equal(image, IMAGE) or np.array_equal(image, mirrored) for image in images)
    share = np.mean([np.array_equal(image, mirrored) for image in images])
    assert 0.4 < share < 0.6


def test_an_augmentation_does_the_same_eagerly_and_in_tf_data() -> None:
    augment = (RandomFlip(vertical=True),)
    seeds = [[3, number] for number in range(20)]
    eager = [augment_image(tf.constant(IMAGE), augment, tf.constant(seed)).numpy() for seed in seeds]
    dataset = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: augment_image(tf.constant(IMAGE), augment, seed)
    )
    np.testing.assert_array_equal(eager, list(dataset.as_numpy_iterator()))


def test_two_of_a_kind_do_not_do_the_same() -> None:
    twice = (RandomFlip(), RandomFlip())
    images = [augment_image(tf.constant(IMAGE), twice, tf.constant([0, number])).numpy() for number in range(40)]
    assert any(np.array_equal(image, IMAGE[:, ::-1]) for image in images)


def test_a_crop_is_taken_out_for_the_decoder() -> None:
    crop, flip = RandomResizedCrop(), RandomFlip()
    assert split_crop((crop, flip)) == (crop, (flip,))
    assert split_crop((flip,)) == (None, (flip,))
    assert split_crop(()) == (None, ())


@pytest.mark.parametrize("augment", [(RandomFlip(), RandomResizedCrop()), (RandomResizedCrop(), RandomResizedCrop())])
def test_a_crop_that_does_not_come_first_is_refused(augment: tuple[RandomFlip | RandomResizedCrop, ...]) -> None:
    with pytest.raises(ConfigError, match="has RandomResizedCrop at position 1; one crop may stand there, and first"):
        split_crop(augment)


@pytest.mark.parametrize("area", [(0.5, 0.2), (0.0, 1.0), (0.5, 1.5)])
def test_a_wrong_area_is_refused(area: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="`area` should be"):
        RandomResizedCrop(area=area)
