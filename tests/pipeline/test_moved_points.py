"""Spots of light in a transformed image are where its transform moves their points."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image

from model_trainer import ModelSpec
from model_trainer.pipeline.augment import (
    Augmentation,
    BatchAugmentation,
    Crop,
    RandAugment,
    RandomBrightness,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomShear,
    RandomShift,
    RandomZoom,
    TrivialAugment,
    augment_image,
    augment_transform,
    compose,
    policies,
)
from model_trainer.pipeline.augment.affine import Affine
from model_trainer.pipeline.image import exact_image, fast_image
from model_trainer.pipeline.view import View

pytestmark = pytest.mark.long

Change = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # image and seed to changed image and transform

HEIGHT, WIDTH = 66, 90
POINTS = ((21.5, 15.0), (68.25, 18.5), (44.0, 34.75), (29.0, 49.5), (51.5, 27.0), (38.25, 42.0))  # x, y
SIGMA = 1.7  # pixels, of the spots
# Pixels. A transform that counts from the pixels' centers misses by 1.4 where the image is turned upside down.
TOLERANCE = 0.6

STRONG = {
    "flip": RandomFlip(vertical=True),
    "rotation": RandomRotation(degrees=180),
    "zoom": RandomZoom(factor=0.5),
    "zoom both ways": RandomZoom(factor=0.4, keep_proportions=True, fill_mode="constant"),
    "shift": RandomShift(horizontal=0.4, vertical=0.4, fill_mode="constant"),
    "shear": RandomShear(horizontal=35, vertical=25),
    "rotation that does nothing": RandomRotation(degrees=0),
    "policy": RandAugment(num_ops=1, magnitude=30),
    "wide policy": TrivialAugment(),
    "crop": RandomCrop(0.6),
    "crop in pixels": RandomCrop((50, 40)),
    "resized crop": RandomResizedCrop(),
}
KINDS = sorted(
    (kind for kind in Augmentation.kinds().values() if not issubclass(kind, BatchAugmentation)),
    key=lambda kind: kind.__name__,
)
MAY_HIDE = (RandomErasing, RandAugment, TrivialAugment)  # a spot may be covered, or as dark as the rest
CHAINS = {
    "flip after rotation": (RandomRotation(degrees=180), RandomFlip(vertical=True)),
    "rotation after flip": (RandomFlip(vertical=True), RandomRotation(degrees=180)),
    "moved at once": (RandomRotation(degrees=90), RandomZoom(factor=0.4), RandomShear(), RandomShift()),
    "moved one by one": (RandomRotation(degrees=90), RandomZoom(factor=0.4, fill_mode="constant"), RandomShift()),
    "among colors": (RandomBrightness(), RandomRotation(degrees=60), TrivialAugment(), RandomFlip()),
}


def spot(point: tuple[float, float]) -> np.ndarray:
    """A dark image with a light around `point`, counted from the corner of the first pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    light = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * SIGMA**2))
    return np.repeat(np.round(light).astype(np.uint8)[..., None], 3, axis=-1)


def find(image: np.ndarray, dark: np.ndarray) -> np.ndarray | None:
    """x, y of the center of what differs from the image without a spot; None if nothing does."""
    light = np.abs(image.astype(float) - dark).mean(axis=-1)
    if light.max() < 13:
        return None
    light[light < light.max() / 2] = 0
    y, x = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


def distances(change: Change, seeds: range, may_hide: bool = False) -> np.ndarray:
    """How far each spot is from where the transform puts it, in pixels; asserts that none appears or vanishes.

    Args:
        change: may return several transforms, one to each intermediate image; a spot cut off in one is left out. All
            these images have the same size.
        may_hide: a spot that cannot be found is left out.
    """
    missed = []
    for number in seeds:
        seed = tf.constant([11, number])
        dark, transforms = (result.numpy() for result in change(tf.constant(spot((-999, 0))), seed))
        assert transforms.dtype == np.float32
        transforms = transforms.reshape(-1, 3, 3).astype(float)
        for point in POINTS:
            expected = (transforms @ [*point, 1])[:, :2]
            radius = 1 + 3 * SIGMA * np.linalg.norm(transforms[:, :2, :2], 2, axis=(1, 2))
            inside = np.minimum(expected, [dark.shape[1], dark.shape[0]] - expected).min(axis=1)
            if (np.abs(inside) < radius).any():  # a spot that is cut off at an edge has another center
                continue
            position = find(change(tf.constant(spot(point)), seed)[0].numpy(), dark)
            if inside.min() < 0:
                assert position is None
            elif position is None:
                assert may_hide
            else:
                missed.append(np.hypot(*(position - expected[-1])))
    return np.array(missed)


def compiled(augmentation: Augmentation) -> Change:
    def change(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augmentation.apply(image, seed), augmentation.transform(float(HEIGHT), float(WIDTH), seed)

    return tf.function(change, autograph=False)


@pytest.mark.parametrize("name", STRONG)
def test_points_move_with_the_image(name: str) -> None:
    augmentation = STRONG[name]
    missed = distances(compiled(augmentation), range(20), isinstance(augmentation, MAY_HIDE))
    assert len(missed) > 25
    assert missed.max() < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_points_move_with_the_image_in_every_kind_of_augmentation(kind: type[Augmentation]) -> None:
    missed = distances(compiled(kind()), range(4), issubclass(kind, MAY_HIDE))
    assert len(missed) > 3
    # A partly covered spot has another center.
    assert (np.median(missed) if kind is RandomErasing else missed.max()) < TOLERANCE


@pytest.mark.parametrize("name", CHAINS)
def test_points_move_with_the_image_through_several_augmentations(name: str) -> None:
    chain = CHAINS[name]
    steps = [len(chain)] if name == "moved at once" else range(1, len(chain) + 1)

    @tf.function(autograph=False)
    def change(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        transforms = [augment_transform(HEIGHT, WIDTH, chain[:step], seed) for step in steps]
        return augment_image(image, chain, seed), tf.stack(transforms)

    missed = distances(change, range(20), may_hide=name == "among colors")
    assert len(missed) > 25
    assert missed.max() < TOLERANCE


def test_points_move_with_the_image_through_two_operations_of_a_policy() -> None:
    policies = [RandAugment(num_ops=count, magnitude=25) for count in (1, 2)]  # both draw the same first one

    @tf.function(autograph=False)
    def change(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        transforms = [policy.transform(float(HEIGHT), float(WIDTH), seed) for policy in policies]
        return policies[-1].apply(image, seed), tf.stack(transforms)

    missed = distances(change, range(20), may_hide=True)
    assert len(missed) > 25
    assert missed.max() < TOLERANCE


@pytest.mark.parametrize("name", ["flip", "rotation", "wide policy", "resized crop"])
def test_the_transform_is_the_same_eagerly_and_for_an_image_of_unknown_size(name: str) -> None:
    seeds, size = [[3, number] for number in range(4)], tf.constant([23.0, 31.0])
    inside = tf.data.Dataset.from_tensor_slices(seeds).map(lambda seed: STRONG[name].transform(size[0], size[1], seed))
    for seed, transform in zip(seeds, inside.as_numpy_iterator(), strict=True):
        np.testing.assert_allclose(STRONG[name].transform(23, 31, tf.constant(seed)), transform, rtol=1e-6)


@pytest.mark.parametrize("name", ["rotation", "zoom", "shear"])
def test_the_image_matches_pillow_with_the_inverse_transform(name: str) -> None:
    change = compiled(STRONG[name].changed("fill_mode", "constant"))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([60 + 2 * x, 60 + 2 * y, 150 + 60 * np.sin(x / 7) * np.cos(y / 5)], axis=-1).astype(np.uint8)
    for number in range(6):
        ours, transform = change(tf.constant(image), tf.constant([2, number]))
        back = tuple(np.linalg.inv(transform.numpy().astype(float))[:2].ravel())
        pillows = np.asarray(
            Image.fromarray(image).transform((WIDTH, HEIGHT), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
        )
        # Pillow does not blend border pixels with the fill value.
        inside = scipy.ndimage.binary_erosion(pillows.min(axis=-1) > 0, iterations=2)
        assert inside.mean() > 0.2
        assert np.abs(ours.numpy().astype(int) - pillows)[inside].max() <= 1


def test_the_transform_of_a_policy_covers_all_operations() -> None:
    limits = policies.Limits(0.3, (9.0, 9.0), 30.0, 0.9, 4)
    rest = (tf.constant(1.0), tf.constant(1.0), limits, policies.Resampling())
    assert len(policies.operations(tf.constant(spot((0, 0))), *rest)) == policies.NUM_OPERATIONS


def test_augmenting_without_points_computes_no_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    for kind in (Affine, Augmentation, Crop, RandomFlip, RandAugment, TrivialAugment, View):
        monkeypatch.setattr(kind, "transform", fail)
    view = View(ModelSpec(target_size=(20, 30, 3)), RandomCrop())
    image, seed = tf.constant(spot(POINTS[0])), tf.constant([0, 1])
    augment = [one for one in STRONG.values() if not isinstance(one, Crop)]
    assert augment_image(view(image, tf.constant([0, 0, 30, 40]), seed), augment, seed).shape == (20, 30, 3)


VIEWS = {
    "crop": (View(ModelSpec(target_size=(96, 80, 3))), 1),
    "crop of the middle": (View(ModelSpec(target_size=(54, 120, 3))), 1),
    "squash": (View(ModelSpec(target_size=(100, 60, 3), resize="squash", interpolation="bicubic")), 1),
    "pad above and below": (View(ModelSpec(target_size=(97, 70, 3), resize="pad")), 1),
    "pad left and right": (View(ModelSpec(target_size=(50, 121, 3), resize="pad", interpolation="nearest")), 1),
    "gray": (View(ModelSpec(target_size=(60, 60, 1), resize="pad", interpolation="lanczos3")), 1),
    "much smaller": (View(ModelSpec(target_size=(52, 60, 3), resize="squash")), 3),
    "smaller by areas": (View(ModelSpec(target_size=(57, 61, 3), resize="squash", interpolation="area")), 3),
    "larger by areas": (View(ModelSpec(target_size=(157, 161, 3), resize="squash", interpolation="area")), 1),
    "resized crop": (View(ModelSpec(target_size=(64, 56, 3)), RandomResizedCrop()), 1),
    "crop instead of pad": (View(ModelSpec(target_size=(64, 96, 3), resize="pad"), RandomCrop(0.7)), 1),
}


@pytest.mark.parametrize("region", [(0, 0, HEIGHT, WIDTH), (4, 7, 57, 71)], ids=["whole", "region"])
@pytest.mark.parametrize("name", VIEWS)
def test_points_move_with_the_view(name: str, region: tuple[int, int, int, int]) -> None:
    view, scale = VIEWS[name]
    crop = tf.constant(region) * scale

    @tf.function(autograph=False)
    def change(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        large = tf.repeat(tf.repeat(image, scale, axis=0), scale, axis=1)
        enlarged = tf.linalg.diag([float(scale), float(scale), 1.0])
        return view(large, crop, seed), compose(enlarged, view.transform(crop, seed))

    missed = distances(change, range(8 if view.crop else 1))
    assert len(missed) >= (8 if view.crop else 2)
    assert missed.max() < TOLERANCE


def test_points_move_with_view_and_augmentations_together() -> None:
    view = View(ModelSpec(target_size=(72, 60, 3)), RandomResizedCrop())
    crop, augment = tf.constant([2, 3, 62, 85]), (RandomRotation(degrees=90), RandomFlip(), RandomZoom(factor=0.3))

    @tf.function(autograph=False)
    def change(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        viewed = view.transform(crop, seed)
        moved = compose(viewed, augment_transform(72, 60, augment, seed))
        return augment_image(view(image, crop, seed), augment, seed), tf.stack([viewed, moved])

    missed = distances(change, range(20))
    assert len(missed) > 25
    assert missed.max() < TOLERANCE


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("is_fast", [True, False])
def test_points_of_a_rotated_photo_are_those_of_the_upright_image(orientation: int, is_fast: bool) -> None:
    view = View(ModelSpec(target_size=(80, 56, 3)), RandomResizedCrop())
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {1: 0, 3: 2, 6: 1}[orientation]

    @tf.function(autograph=False)
    def read(data: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return fast_image(data, view, seed=seed) if is_fast else exact_image(data, view, seed=seed)[0]

    def change(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        file = io.BytesIO()
        Image.fromarray(np.rot90(image, turns)).save(file, "JPEG", exif=exif, quality=95)
        return read(tf.constant(file.getvalue()), seed), view.transform(tf.constant([0, 0, HEIGHT, WIDTH]), seed)

    missed = distances(change, range(4))
    assert len(missed) > 4
    assert missed.max() < TOLERANCE
