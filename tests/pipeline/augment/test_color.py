from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from model_trainer.pipeline.augment import RandomBrightness, RandomGrayscale
from model_trainer.pipeline.augment.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    to_gray,
)

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (20, 17, 3)).astype(np.uint8)
WITH_ALPHA = RANDOM.integers(0, 256, (20, 17, 4)).astype(np.uint8)
CHANGES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "brightness": lambda image: adjust_brightness(image, 0.7),
    "contrast": lambda image: adjust_contrast(image, 0.7),
    "saturation": lambda image: adjust_saturation(image, 0.7),
    "hue": lambda image: adjust_hue(image, 0.3),
    "gray": to_gray,
}


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.9, 1.0, 1.7])
@pytest.mark.parametrize(
    ("adjust", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_match_pillow(
    adjust: Callable[[tf.Tensor, float], tf.Tensor], enhancer: type[ImageEnhance.Color], factor: float
) -> None:
    pillows = np.asarray(enhancer(Image.fromarray(IMAGE)).enhance(factor)).astype(int)
    # Pillow truncates fractions, and rounds the gray that it blends with.
    assert np.abs(adjust(tf.constant(IMAGE), factor).numpy() - pillows).max() <= 1


def test_brightness_rounds_once_and_halves_up() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = [min(255, (3 * value + 1) // 2) for value in range(256)]  # 1.5 times, in whole numbers
    np.testing.assert_array_equal(np.ravel(adjust_brightness(tf.constant(values), 1.5)), expected)


def test_gray_matches_pillow_for_every_shade() -> None:
    every_fifth = np.arange(0, 256, 5, dtype=np.uint8)
    shades = np.stack(np.meshgrid(every_fifth, every_fifth, every_fifth), axis=-1).reshape(52, -1, 3)
    gray = to_gray(tf.constant(shades)).numpy()
    np.testing.assert_array_equal(gray, np.repeat(np.asarray(Image.fromarray(shades).convert("L"))[..., None], 3, -1))


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.2, 0.4])
def test_a_hue_shift_matches_colorsys(shift: float) -> None:
    def shift_hue(pixel: np.ndarray) -> list[float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        return [255 * channel for channel in colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)]

    expected = np.apply_along_axis(shift_hue, -1, IMAGE)
    assert np.abs(adjust_hue(tf.constant(IMAGE), shift).numpy() - expected).max() <= 0.51


def test_contrast_of_one_channel_is_about_its_mean() -> None:
    gray = IMAGE[..., :1]
    expected = np.clip(gray.mean() + 0.5 * (gray - gray.mean()), 0, 255)
    assert np.abs(adjust_contrast(tf.constant(gray), 0.5).numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("name", CHANGES)
def test_alpha_is_unchanged_and_does_not_change_the_colors(name: str) -> None:
    changed = CHANGES[name](tf.constant(WITH_ALPHA)).numpy()
    np.testing.assert_array_equal(changed[..., 3], WITH_ALPHA[..., 3])
    np.testing.assert_array_equal(changed[..., :3], CHANGES[name](tf.constant(WITH_ALPHA[..., :3])))


@pytest.mark.parametrize("name", ["saturation", "hue", "gray"])
def test_saturation_and_hue_do_not_change_images_of_one_channel(name: str) -> None:
    np.testing.assert_array_equal(CHANGES[name](tf.constant(IMAGE[..., :1])), IMAGE[..., :1])


def test_brightness_reaches_the_declared_factor_in_both_directions() -> None:
    image = tf.fill((1, 1, 1), tf.constant(100, tf.uint8))
    change = RandomBrightness(factor=0.4)
    make = tf.function(lambda seeds: tf.map_fn(lambda seed: change.apply(image, seed), seeds, tf.uint8))
    values = make(tf.constant([[0, number] for number in range(200)])).numpy().astype(int)
    assert (values.min(), values.max()) == (pytest.approx(60, abs=1), pytest.approx(140, abs=1))


def test_the_declared_fraction_of_the_images_becomes_gray() -> None:
    change = tf.function(lambda seed: RandomGrayscale(probability=0.25).apply(tf.constant(IMAGE), seed))
    images = [change(tf.constant([0, number])).numpy() for number in range(400)]
    assert 0.2 < np.mean([(image[..., 0] == image[..., 1]).all() for image in images]) < 0.3
