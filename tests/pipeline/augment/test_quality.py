from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image, ImageEnhance

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import RandomBlur, RandomJpegQuality
from model_trainer.pipeline.augment.quality import adjust_sharpness, blur, compress_as_jpeg

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (20, 17, 3)).astype(np.uint8)
SMOOTH = scipy.ndimage.gaussian_filter(RANDOM.uniform(-900, 1150, (40, 33, 3)), (4, 4, 0)).clip(0, 255).astype(np.uint8)


def compressed_by_pillow(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_blur_matches_scipy_normalized_by_the_kernel_weight_inside_the_image(sigma: float) -> None:
    def gaussian(values: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(values, (sigma, sigma, 0), mode="constant", radius=(6, 6, 0))

    expected = gaussian(NOISE.astype(float)) / gaussian(np.ones(NOISE.shape))
    assert np.abs(blur(tf.constant(NOISE), sigma, 6).numpy() - expected).max() <= 0.51


def test_blur_does_not_change_an_image_of_one_color() -> None:
    flat = tf.fill((7, 5, 3), tf.constant(201, tf.uint8))
    np.testing.assert_array_equal(blur(flat, 3.0, 9), flat)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 60, 95])
def test_jpeg_compression_matches_pillow(quality: int, channels: int) -> None:
    image = SMOOTH[..., :channels]
    ours = compress_as_jpeg(tf.constant(image), quality).numpy().astype(int)
    assert np.abs(ours - compressed_by_pillow(image, quality)).max() <= 1


def test_jpeg_qualities_include_both_declared_ends() -> None:
    lossy = RandomJpegQuality(quality=(3, 5), probability=1)
    change = tf.function(lambda seed: lossy.apply(tf.constant(SMOOTH), seed))
    results = {change(tf.constant([0, number])).numpy().tobytes() for number in range(40)}
    assert results == {compress_as_jpeg(tf.constant(SMOOTH), quality).numpy().tobytes() for quality in (3, 4, 5)}


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.9])
def test_sharpness_matches_pillow(factor: float) -> None:
    pillows = np.asarray(ImageEnhance.Sharpness(Image.fromarray(NOISE)).enhance(factor)).astype(int)
    assert np.abs(adjust_sharpness(tf.constant(NOISE), factor).numpy() - pillows).max() <= 1  # it rounds twice


@pytest.mark.parametrize("change", [lambda image: blur(image, 1.0, 3), lambda image: compress_as_jpeg(image, 30)])
def test_alpha_is_unchanged(change: object) -> None:
    image = np.concatenate([NOISE, NOISE[..., :1]], axis=-1)
    changed = change(tf.constant(image)).numpy()
    np.testing.assert_array_equal(changed[..., 3], image[..., 3])
    np.testing.assert_array_equal(changed[..., :3], change(tf.constant(NOISE)))


def test_the_declared_fraction_of_the_images_is_blurred() -> None:
    change = tf.function(lambda seed: RandomBlur(sigma=(1, 2), probability=0.3).apply(tf.constant(NOISE), seed))
    changed = [not np.array_equal(change(tf.constant([0, number])), NOISE) for number in range(300)]
    assert 0.2 < np.mean(changed) < 0.4


@pytest.mark.parametrize("quality", [(0, 50), (60, 50), (50, 101)])
def test_an_invalid_quality_is_refused(quality: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="`quality` should be two integers from 1 to 100, the smaller first"):
        RandomJpegQuality(quality=quality)
