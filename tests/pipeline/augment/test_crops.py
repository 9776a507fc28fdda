from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import Crop, RandomCrop, RandomResizedCrop


def boxes(crop: Crop, height: int, width: int, count: int = 300) -> np.ndarray:
    seeds = tf.constant([[7, number] for number in range(count)])
    return compile_box(crop)(tf.constant(height), tf.constant(width), seeds).numpy()


@functools.cache
def compile_box(crop: Crop) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    return tf.function(lambda height, width, seeds: tf.map_fn(lambda seed: crop.box(height, width, seed), seeds))


@pytest.mark.parametrize("crop", [RandomResizedCrop(), RandomCrop(0.5), RandomCrop(0.5, True), RandomCrop((50, 60))])
@pytest.mark.parametrize(("height", "width"), [(100, 100), (400, 300), (1, 1), (2000, 3), (3, 2000)])
def test_a_crop_lies_inside_the_image(crop: Crop, height: int, width: int) -> None:
    top, left, crop_height, crop_width = boxes(crop, height, width, 100).T
    assert (crop_height >= 1).all()
    assert (crop_width >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + crop_height <= height).all()
    assert (left + crop_width <= width).all()


def test_a_resized_crop_has_the_declared_area_and_ratio() -> None:
    _, _, height, width = boxes(RandomResizedCrop(area=(0.2, 0.5), ratio=(0.8, 1.25)), 1000, 1000).T
    fractions = height * width / 1e6
    assert fractions.min() == pytest.approx(0.2, abs=0.01)
    assert fractions.max() == pytest.approx(0.5, abs=0.01)
    assert (width / height).min() == pytest.approx(0.8, abs=0.01)
    assert (width / height).max() == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize(
    "crop", [RandomResizedCrop(area=(0.3, 0.3), ratio=(1.0, 1.0)), RandomCrop(0.5), RandomCrop((3, 6))]
)
def test_crops_reach_every_corner(crop: Crop) -> None:
    top, left, height, width = boxes(crop, 10, 10).T
    assert {int(offset) for offset in top} == set(range(10 - int(height[0]) + 1))
    assert {int(offset) for offset in left} == set(range(10 - int(width[0]) + 1))


@pytest.mark.parametrize(
    ("crop", "size"),
    [
        (RandomCrop(size=(30, 50)), (30, 50)),
        (RandomCrop(size=(300, 50)), (80, 50)),  # limited to the size of the image
        (RandomCrop(size=0.5), (40, 60)),
        (RandomCrop(size=0.5, square=True), (40, 40)),
        (RandomCrop(size=0.001), (1, 1)),
    ],
)
def test_a_crop_of_an_80_by_120_image_has_its_declared_size(crop: RandomCrop, size: tuple[int, int]) -> None:
    assert (boxes(crop, 80, 120, 3)[:, 2:] == size).all()


@pytest.mark.parametrize("area", [(0.5, 0.2), (0.0, 1.0), (0.5, 1.5)])
def test_an_invalid_area_is_refused(area: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="`area` should be"):
        RandomResizedCrop(area=area)


@pytest.mark.parametrize("size", [0.0, 1.5, 224, (0, 10)])
def test_an_invalid_crop_size_is_refused(size: float | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"`size` should be \(height, width\) in pixels, or a fraction above 0"):
        RandomCrop(size=size)
