from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from model_trainer.pipeline.augment import RandAugment, TrivialAugment, policies

NUM_OPERATIONS = 14
HEIGHT, WIDTH = 36, 48
IMAGE = (
    scipy.ndimage.gaussian_filter(np.random.default_rng(0).uniform(-900, 1150, (HEIGHT, WIDTH, 3)), (4, 4, 0))
    .clip(5, 200)
    .astype(np.uint8)
)


def with_pillow(strength: float) -> dict[str, Image.Image]:
    """Every outcome of one operation of RandAugment, by Pillow."""
    image = Image.fromarray(IMAGE)
    outcomes = {
        "identity": image,
        "posterize": ImageOps.posterize(image, 8 - round(4 * strength)),
        "solarize": ImageOps.solarize(image, round(256 * (1 - strength))),
        "auto contrast": ImageOps.autocontrast(image),
        "equalize": ImageOps.equalize(image),
    }

    def moved(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)

    for sign in (-1, 1):
        lean, angle = sign * 0.3 * strength, sign * 30 * strength
        shift = sign * strength * 150 / 331
        outcomes |= {
            f"shear x {sign}": moved(1, lean, -lean * HEIGHT / 2, 0, 1, 0),
            f"shear y {sign}": moved(1, 0, 0, lean, 1, -lean * WIDTH / 2),
            f"shift x {sign}": moved(1, 0, shift * WIDTH, 0, 1, 0),
            f"shift y {sign}": moved(1, 0, 0, 0, 1, shift * HEIGHT),
            f"rotation {sign}": image.rotate(angle),
        }
        for enhancer in (
            ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, ImageEnhance.Sharpness,
        ):  # fmt: skip
            outcomes[f"{enhancer.__name__} {sign}"] = enhancer(image).enhance(1 + sign * 0.9 * strength)
    return outcomes


def counting(count: Callable[[], None]) -> Callable[..., list[Callable[[], tf.Tensor]]]:
    """Replaces the list of operations; each calls `count` when it is computed."""

    def operations(image: tf.Tensor, *rest: object) -> list[Callable[[], tf.Tensor]]:
        def operation() -> tf.Tensor:
            def compute(pixels: np.ndarray) -> np.ndarray:
                count()
                return pixels

            return tf.ensure_shape(tf.numpy_function(compute, [image], tf.uint8), image.shape)

        return [operation] * NUM_OPERATIONS

    return operations


@pytest.mark.long
def test_each_operation_of_rand_augment_matches_pillow() -> None:
    expected = {name: np.asarray(image).astype(int) for name, image in with_pillow(15 / 30).items()}
    change = tf.function(lambda seed: RandAugment(num_ops=1, magnitude=15).apply(tf.constant(IMAGE), seed))
    matched = set()
    for number in range(200):
        image = change(tf.constant([0, number])).numpy()
        # A few pixels of a moved image lie half-way between two.
        wrong = {name: (np.abs(image - other).max(axis=-1) > 1).mean() for name, other in expected.items()}
        name = min(wrong, key=wrong.__getitem__)
        assert wrong[name] < 0.02
        matched.add(name)
    assert matched == set(expected)


def test_trivial_augment_draws_random_operations_and_strengths() -> None:
    change = tf.function(lambda seed: TrivialAugment().apply(tf.constant(IMAGE), seed))
    images = {change(tf.constant([0, number])).numpy().tobytes() for number in range(150)}
    assert len(images) > 80  # at most 3 + 4 + 31 + 2 * 9 * 31; many are drawn twice


def test_trivial_augment_shifts_by_at_most_32_pixels() -> None:
    line = np.zeros((8, 101, 1), np.uint8)
    line[:, 50] = 255
    change = tf.function(lambda strength, sign: policies.operations(
        tf.constant(line), strength, sign, policies.Limits(0.99, (32.0, 32.0), 135.0, 0.99, 6), policies.Resampling()
    )[4]())  # fmt: skip
    assert [int(np.argmax(change(tf.constant(1.0), tf.constant(sign))[0, :, 0])) for sign in (-1.0, 1.0)] == [18, 82]


@pytest.mark.parametrize("policy", [RandAugment(num_ops=2), RandAugment(num_ops=3), TrivialAugment()])
def test_only_the_drawn_operations_are_computed(
    policy: RandAugment | TrivialAugment, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[None] = []
    monkeypatch.setattr(policies, "operations", counting(lambda: computed.append(None)))
    images = tf.data.Dataset.range(20).map(lambda number: policy.apply(tf.constant(IMAGE), tf.stack([0, number])))
    assert len(list(images)) == 20
    assert len(computed) == 20 * getattr(policy, "num_ops", 1)


def test_rand_augment_of_magnitude_zero_changes_at_most_the_contrast() -> None:
    change = tf.function(lambda seed: RandAugment(num_ops=1, magnitude=0).apply(tf.constant(IMAGE), seed))
    images = {change(tf.constant([0, number])).numpy().tobytes() for number in range(60)}
    assert IMAGE.tobytes() in images
    assert len(images) == 3  # auto contrast and equalize have no strength


def test_shear_is_about_the_center() -> None:
    operations = policies.operations(
        tf.constant(IMAGE), tf.constant(1.0), tf.constant(1.0), policies.Limits(0.3, (0, 0), 30, 0.9, 4),
        policies.Resampling("constant", 0, "nearest"),
    )  # fmt: skip
    sheared = operations[2]().numpy()
    edge = math.floor(0.3 * HEIGHT / 2) - 1
    assert (sheared[0, -edge:] == 0).all() or (sheared[0, :edge] == 0).all()
    assert (sheared[-1, -edge:] == 0).all() or (sheared[-1, :edge] == 0).all()
    np.testing.assert_array_equal(sheared[HEIGHT // 2, 1:-1], IMAGE[HEIGHT // 2, 1:-1])
