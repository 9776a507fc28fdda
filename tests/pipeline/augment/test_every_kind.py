"""What holds for every augmentation; one that is added later is tested here automatically."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.pipeline.augment import (
    Augmentation,
    BatchAugmentation,
    Crop,
    CutMix,
    MixUp,
    RandAugment,
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomGrayscale,
    RandomHue,
    RandomJpegQuality,
    RandomResizedCrop,
    RandomRotation,
    RandomSaturation,
    RandomShear,
    RandomShift,
    RandomZoom,
    TrivialAugment,
)

KINDS = sorted(Augmentation.kinds().values(), key=lambda kind: kind.__name__)
RANDOM = np.random.default_rng(0)
SEEDS = [[5, number] for number in range(12)]
OF_STRENGTH_ZERO = (
    CutMix(probability=0),
    MixUp(probability=0),
    RandomBlur(probability=0),
    RandomBrightness(factor=0),
    RandomContrast(factor=0),
    RandomCrop(size=1.0),
    RandomErasing(probability=0),
    RandomFlip(horizontal=False),
    RandomGrayscale(probability=0),
    RandomHue(factor=0),
    RandomJpegQuality(probability=0),
    RandomResizedCrop(area=(1, 1), ratio=(1, 1)),
    RandomRotation(degrees=0),
    RandomSaturation(factor=0),
    RandomShear(horizontal=0, vertical=0),
    RandomShift(horizontal=0, vertical=0),
    RandomZoom(factor=0),
)


def draw_image(height: int = 12, width: int = 12, channels: int = 3) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, channels)).astype(np.uint8)


def with_probability_one_half(kind: type[Augmentation]) -> Augmentation:
    """With every second image changed, so that a few seeds show both."""
    return kind().changed("probability", 0.5) if "probability" in kind.model_fields else kind()


def apply(augmentation: Augmentation, image: np.ndarray | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The changed image; for augmentations of batches a batch of three: the image, mirrored and upside down."""
    image = tf.convert_to_tensor(image)
    if not isinstance(augmentation, BatchAugmentation):
        return augmentation.apply(image, seed)
    images = tf.stack([image, image[:, ::-1], image[::-1]])
    return augmentation.apply_to_batch(images, tf.eye(3), tf.ones(3), seed)[0]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_an_augmentation_does_the_same_eagerly_and_in_tf_data(kind: type[Augmentation]) -> None:
    augmentation, image = with_probability_one_half(kind), draw_image(24, 20)

    def change(seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        changed = apply(augmentation, image, seed)
        if kind is RandAugment:  # its operations are those of TrivialAugment, and to build them takes seconds
            return (changed,)
        of_unknown_size = tf.compat.v1.placeholder_with_default(image, (None, None, 3))
        return changed, apply(augmentation, of_unknown_size, seed)

    dataset = tf.data.Dataset.from_tensor_slices(SEEDS[:4]).map(change)
    for seed, inside in zip(SEEDS[:4], dataset.as_numpy_iterator(), strict=True):
        for result in inside:
            np.testing.assert_array_equal(apply(augmentation, image, tf.constant(seed)), result)


@pytest.mark.parametrize("kind", KINDS)
def test_an_augmentation_with_another_seed_does_something_else(kind: type[Augmentation]) -> None:
    augmentation, image = with_probability_one_half(kind), draw_image()
    first = apply(augmentation, image, tf.constant(SEEDS[0]))
    assert any(not np.array_equal(first, apply(augmentation, image, tf.constant(seed))) for seed in SEEDS[1:])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_augmentation_keeps_dtype_size_and_channels(
    kind: type[Augmentation], shape: tuple[int, int], channels: int
) -> None:
    image = draw_image(*shape, channels)
    for seed in SEEDS[:3]:
        result = apply(with_probability_one_half(kind), image, tf.constant(seed))
        assert result.dtype == tf.uint8
        if not issubclass(kind, Crop):
            assert result.shape[-3:] == image.shape


@pytest.mark.parametrize("augmentation", OF_STRENGTH_ZERO, ids=lambda one: type(one).__name__)
def test_an_augmentation_of_strength_zero_returns_the_image(augmentation: Augmentation) -> None:
    image = draw_image()
    result = apply(augmentation, image, tf.constant([1, 2]))
    np.testing.assert_array_equal(result[0] if result.shape.rank == 4 else result, image)


def test_every_kind_but_the_policies_can_have_strength_zero() -> None:
    assert {type(one) for one in OF_STRENGTH_ZERO} | {RandAugment, TrivialAugment} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_augmentation_can_be_written_to_json_and_read_back(kind: type[Augmentation]) -> None:
    assert kind.from_dict(kind().to_dict()) == kind()
