from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from model_trainer.pipeline.augment.tone import auto_contrast, equalize, posterize, solarize

RANDOM = np.random.default_rng(0)
IMAGES = {
    "even": RANDOM.integers(0, 256, (40, 31, 3)),
    "narrow": RANDOM.normal(120, 9, (40, 31, 3)),
    "flat": np.full((40, 31, 3), 77),
    "two values": RANDOM.choice([3, 250], (40, 31, 3)),
    "tiny": RANDOM.integers(0, 256, (2, 3, 3)),
}
IMAGES = {name: np.clip(image, 0, 255).astype(np.uint8) for name, image in IMAGES.items()}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("lost_bits", [0, 1, 4, 7])
def test_posterize_matches_pillow(name: str, lost_bits: int) -> None:
    pillows = ImageOps.posterize(Image.fromarray(IMAGES[name]), 8 - lost_bits)
    np.testing.assert_array_equal(posterize(tf.constant(IMAGES[name]), tf.constant(lost_bits, tf.uint8)), pillows)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("threshold", [0, 77, 78, 256])
def test_solarize_matches_pillow(name: str, threshold: int) -> None:
    pillows = ImageOps.solarize(Image.fromarray(IMAGES[name]), threshold)
    np.testing.assert_array_equal(solarize(tf.constant(IMAGES[name]), tf.constant(threshold)), pillows)


@pytest.mark.parametrize("name", IMAGES)
def test_equalize_matches_pillow(name: str) -> None:
    np.testing.assert_array_equal(equalize(tf.constant(IMAGES[name])), ImageOps.equalize(Image.fromarray(IMAGES[name])))


@pytest.mark.parametrize("name", IMAGES)
def test_auto_contrast_matches_pillow(name: str) -> None:
    pillows = np.asarray(ImageOps.autocontrast(Image.fromarray(IMAGES[name]))).astype(int)
    assert np.abs(auto_contrast(tf.constant(IMAGES[name])).numpy() - pillows).max() <= 1  # Pillow truncates fractions
