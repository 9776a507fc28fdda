from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.pipeline.augment import RandomErasing

BLACK = np.zeros((40, 50, 3), np.uint8)


def erase(image: np.ndarray, count: int = 60, **options: object) -> list[np.ndarray]:
    change = tf.function(lambda seed: RandomErasing(**options).apply(tf.constant(image), seed))
    return [change(tf.constant([4, number])).numpy() for number in range(count)]


def test_the_erased_region_is_one_rectangle_of_the_declared_area_and_ratio() -> None:
    for image in erase(BLACK, area=(0.1, 0.3), ratio=(0.5, 2.0), fill_value=255, probability=1):
        rows, columns = np.nonzero(image[..., 0])
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        assert 0.09 < height * width / 2000 < 0.31
        assert 0.45 < width / height < 2.2
        assert (image == image[..., :1]).all()


def test_erasing_reaches_every_edge() -> None:
    covered = np.max(erase(BLACK, 200, fill_value=1, probability=1), axis=0)
    assert covered[0].any()
    assert covered[-1].any()
    assert covered[:, 0].any()
    assert covered[:, -1].any()


def test_the_rest_of_the_image_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 200, (9, 7, 3)).astype(np.uint8)
    for result in erase(image, 20, fill_value=255, probability=1):
        np.testing.assert_array_equal(result[result < 255], image[result < 255])


def test_noise_is_uniform_over_all_values() -> None:
    (image,) = erase(np.zeros((200, 200, 3), np.uint8), 1, area=(1, 1), ratio=(1, 1), probability=1)
    counts = np.bincount(image.ravel(), minlength=256)
    assert counts.min() > 0.75 * 120000 / 256
    assert counts.max() < 1.25 * 120000 / 256


@pytest.mark.parametrize("fill_value", [9, "noise"])
def test_the_erased_region_is_opaque(fill_value: int | str) -> None:
    transparent = np.zeros((6, 6, 4), np.uint8)
    (image,) = erase(transparent, 1, area=(1, 1), ratio=(1, 1), fill_value=fill_value, probability=1)
    assert (image[..., 3] == 255).all()
    assert image[..., :3].any()


def test_the_declared_fraction_of_the_images_is_erased() -> None:
    assert 0.2 < np.mean([image.any() for image in erase(BLACK, 300, fill_value=1, probability=0.3)]) < 0.4
