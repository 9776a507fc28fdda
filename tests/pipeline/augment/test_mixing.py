from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import BatchAugmentation, CutMix, MixUp
from model_trainer.pipeline.augment.augmentation import MIN_WEIGHT

RANDOM = np.random.default_rng(0)
SEED = tf.constant([1, 2])
MIXINGS = [MixUp(alpha=1.0), CutMix(alpha=1.0)]


def draw_images(count: int, size: int = 10) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def mixed(
    mixing: BatchAugmentation, images: np.ndarray, weights: np.ndarray | None = None, seed: tf.Tensor = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Images, and targets whose element (i, j) is the fraction of image j in image i."""
    count = len(images)
    weights = np.ones(count, np.float32) if weights is None else weights
    result, targets = mixing.apply_to_batch(tf.constant(images), tf.eye(count), tf.constant(weights), seed)
    return result.numpy(), targets.numpy()


def kept_fractions(mixing: BatchAugmentation, count: int) -> np.ndarray:
    return np.diag(mixed(mixing, draw_images(count, 4))[1])


def test_mix_up_blends_images_and_targets_by_the_same_fraction() -> None:
    images = draw_images(6)
    result, fractions = mixed(MixUp(alpha=1.0), images)
    expected = np.einsum("ij,jhwc->ihwc", fractions.astype(np.float64), images)
    assert np.abs(result - expected).max() <= 0.501


@pytest.mark.parametrize("mixing", MIXINGS)
def test_each_image_is_mixed_with_its_neighbor_in_pairs(mixing: BatchAugmentation) -> None:
    fractions = mixed(mixing, draw_images(6))[1]
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)
    in_a_pair = np.kron(np.eye(3), np.ones((2, 2))).astype(bool)
    assert (fractions[~in_a_pair] == 0).all()
    assert (np.diag(fractions) < 1).all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_last_image_of_an_odd_batch_is_unchanged(mixing: BatchAugmentation) -> None:
    images = draw_images(5)
    result, fractions = mixed(mixing, images)
    assert [np.array_equal(image, own) for image, own in zip(result, images, strict=True)] == [0, 0, 0, 0, 1]
    np.testing.assert_array_equal(fractions[4], np.eye(5)[4])


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_shard_of_a_batch_is_mixed_as_in_the_whole_batch(mixing: BatchAugmentation) -> None:
    images = draw_images(11)
    whole, fractions = mixed(mixing, images)
    sliced = mixing.apply_to_batch(tf.constant(images[4:8]), tf.eye(11)[4:8], tf.ones(4), SEED, first=4)
    np.testing.assert_array_equal(sliced[0], whole[4:8])
    np.testing.assert_array_equal(sliced[1], fractions[4:8])


@pytest.mark.parametrize("weight", [0.0, MIN_WEIGHT], ids=["unreadable", "declared"])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_an_image_of_weight_zero_and_its_partner_are_unchanged(mixing: BatchAugmentation, weight: float) -> None:
    images = draw_images(6)
    result, fractions = mixed(mixing, images, np.array([1, weight, 1, 1, 1, 2], np.float32))
    assert [np.array_equal(image, own) for image, own in zip(result, images, strict=True)] == [1, 1, 0, 0, 0, 0]
    np.testing.assert_array_equal(fractions[[0, 1]], np.eye(6)[[0, 1]])


@pytest.mark.parametrize("mixing", MIXINGS)
def test_unknown_targets_spread_only_to_the_image_they_are_mixed_with(mixing: BatchAugmentation) -> None:
    targets = np.ones((4, 1), np.float32)
    targets[1:3] = np.nan
    weights = np.array([1, 1, 0, 1], np.float32)
    _, blended = mixing.apply_to_batch(tf.constant(draw_images(4)), tf.constant(targets), tf.constant(weights), SEED)
    np.testing.assert_array_equal(blended, [[np.nan], [np.nan], [np.nan], [1]])


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 5.0])
def test_each_image_keeps_the_larger_beta_fraction_of_itself(alpha: float) -> None:
    fractions = kept_fractions(MixUp(alpha=alpha), 4000).astype(np.float64)
    assert np.isfinite(fractions).all()
    # float32 has no numbers between 1 - 6e-8 and 1, where a small alpha puts many.
    beta = scipy.stats.beta(alpha, alpha)
    for limit in (0.501, 0.6, 0.75, 0.9, 0.999):
        assert (fractions < limit).mean() == pytest.approx(beta.cdf(limit) - beta.cdf(1 - limit), abs=0.025)


def test_cut_mix_pastes_the_partners_rectangle_and_blends_targets_by_its_area() -> None:
    images = draw_images(40, 16)
    result, fractions = mixed(CutMix(alpha=1.0), images)
    is_pasted = (result != images).any(axis=-1)
    neighbors = images[np.arange(40) ^ 1]
    np.testing.assert_array_equal(result[is_pasted], neighbors[is_pasted])
    np.testing.assert_allclose(1 - np.diag(fractions), is_pasted.mean(axis=(1, 2)), atol=1e-6)
    for pasted in is_pasted:
        assert pasted.sum() == pasted.any(axis=0).sum() * pasted.any(axis=1).sum()
    assert is_pasted.any(axis=0).all()


def test_cut_mix_rectangles_are_about_as_large_as_drawn() -> None:
    # Half of the uniform fractions would remain if no rectangle reached beyond the image.
    assert 0.5 < kept_fractions(CutMix(alpha=1.0), 2000).mean() < 0.75


@pytest.mark.parametrize("mixing", [MixUp(probability=0.3), CutMix(probability=0.3)])
def test_the_declared_fraction_of_the_images_is_mixed(mixing: BatchAugmentation) -> None:
    images = draw_images(600, 8)
    result, _ = mixed(mixing, images)
    assert 0.15 < (result != images).any(axis=(1, 2, 3)).mean() < 0.35


@pytest.mark.parametrize("mixing", MIXINGS)
def test_empty_batches_and_batches_of_one_image_are_unchanged(mixing: BatchAugmentation) -> None:
    for count in (0, 1):
        images = draw_images(count)
        result, fractions = mixed(mixing, images)
        np.testing.assert_array_equal(result, images)
        np.testing.assert_array_equal(fractions, np.eye(count))


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_single_image_cannot_be_mixed(mixing: BatchAugmentation) -> None:
    with pytest.raises(ConfigError, match="mixes the images of a batch; it cannot change a single one"):
        mixing.apply(tf.constant(draw_images(1)[0]), SEED)
