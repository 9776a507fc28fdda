from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from keras.src.legacy.preprocessing.image import apply_affine_transform
from PIL import Image

from model_trainer.pipeline.augment import (
    KERAS_TRAINER,
    RandomFlip,
    RandomRotation,
    RandomShear,
    RandomShift,
    RandomZoom,
    affine,
)
from model_trainer.pipeline.augment.affine import Affine, FillMode, Interpolation, Resampling, resample

IMAGE = np.random.default_rng(0).integers(0, 256, (14, 9, 3)).astype(np.uint8)
SQUARE = np.random.default_rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
SIZE = (tf.constant(14.0), tf.constant(9.0))
SCIPY_MODES: dict[FillMode, str] = {
    "constant": "grid-constant",
    "nearest": "nearest",
    "reflect": "reflect",
    "wrap": "grid-wrap",
}


def with_scipy(image: np.ndarray, matrix: tf.Tensor, mode: str, order: int = 1, fill: int = 0) -> np.ndarray:
    """The image resampled by SciPy, which takes (y, x) and one channel at a time; float64, not rounded."""
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    by_rows = swap @ np.asarray(matrix, np.float64) @ swap
    channels = [
        scipy.ndimage.affine_transform(image[..., channel].astype(float), by_rows, order=order, mode=mode, cval=fill)
        for channel in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def drawn_matrices(affine: Affine, count: int = 200) -> np.ndarray:
    make = tf.function(lambda seeds: tf.map_fn(lambda seed: affine.matrix(*SIZE, seed), seeds, tf.float32))
    return make(tf.constant([[3, number] for number in range(count)])).numpy()


@pytest.mark.parametrize(("options", "axis"), [({"vertical": False}, 1), ({"horizontal": False, "vertical": True}, 0)])
def test_a_flip_mirrors_half_of_the_images(options: dict[str, bool], axis: int) -> None:
    flip = tf.function(lambda seed: RandomFlip(**options).apply(IMAGE, seed))
    images = [flip(tf.constant([1, number])).numpy() for number in range(400)]
    mirrored = np.flip(IMAGE, axis)
    assert all(np.array_equal(image, IMAGE) or np.array_equal(image, mirrored) for image in images)
    fraction = np.mean([np.array_equal(image, mirrored) for image in images])
    assert 0.4 < fraction < 0.6


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill_mode", list(SCIPY_MODES))
def test_resampled_pixels_match_scipy(fill_mode: FillMode, interpolation: Interpolation) -> None:
    moved = tf.matmul(affine.rotation(tf.constant(37.0), *SIZE), affine.zoom(2.3, 3.1, *SIZE))
    moved = tf.matmul(moved, affine.shift(5.3, -7.9))  # far outside the image on all sides
    ours = resample(tf.constant(IMAGE), moved, Resampling(fill_mode, 70, interpolation)).numpy()
    order = 1 if interpolation == "bilinear" else 0
    expected = np.floor(with_scipy(IMAGE, moved, SCIPY_MODES[fill_mode], order, fill=70) + 0.5)
    difference = np.abs(ours - expected)
    assert difference.max() <= 1  # SciPy computes in float64
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_exact(turns: int) -> None:
    matrix = affine.rotation(tf.constant(90.0 * turns), tf.constant(12.0), tf.constant(12.0))
    np.testing.assert_array_equal(resample(tf.constant(SQUARE), matrix, Resampling()), np.rot90(SQUARE, turns))


def test_a_rotation_matches_pillow() -> None:
    matrix = affine.rotation(tf.constant(25.0), *SIZE)
    ours = resample(tf.constant(IMAGE), matrix, Resampling("constant")).numpy().astype(int)
    pillows = np.asarray(Image.fromarray(IMAGE).rotate(25, Image.Resampling.BILINEAR))
    inside = pillows.min(axis=-1) > 0  # Pillow does not blend border pixels with the fill value
    difference = np.abs(ours - pillows)[inside & np.roll(inside, 1, 0) & np.roll(inside, -1, 0)]
    assert len(difference) > 50
    assert np.median(difference) <= 1


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")  # Keras uses an old name
def test_rotation_then_zoom_matches_the_transform_of_keras() -> None:
    rotation, zoom, _ = KERAS_TRAINER
    assert (rotation.degrees, zoom.factor) == (180, 0.1)
    matrix = tf.matmul(affine.rotation(tf.constant(33.0), 12.0, 12.0), affine.zoom(0.92, 1.07, 12.0, 12.0))
    ours = resample(tf.constant(SQUARE), matrix, rotation.resampling).numpy()
    keras = apply_affine_transform(  # uses the wrong center for an image that is not square
        SQUARE.astype(np.float64), theta=33, zx=1.07, zy=0.92, row_axis=0, col_axis=1, channel_axis=2, order=1
    )
    assert np.abs(ours - keras).max() <= 1


@pytest.mark.parametrize(("down", "right"), [(3, 0), (0, -2), (-20, 33)])
def test_a_shift_that_wraps_equals_numpy_roll(down: int, right: int) -> None:
    ours = resample(tf.constant(IMAGE), affine.shift(float(down), float(right)), Resampling("wrap"))
    np.testing.assert_array_equal(ours, np.roll(IMAGE, (down, right), axis=(0, 1)))


def test_a_shear_moves_rows_by_their_distance_from_the_center() -> None:
    matrix = affine.shear(0.0, 1.0, tf.constant(13.0), tf.constant(9.0))
    image = IMAGE[:13]
    ours = resample(tf.constant(image), matrix, Resampling("wrap")).numpy()
    for row in range(13):
        np.testing.assert_array_equal(ours[row], np.roll(image[row], row - 6, axis=0))


def test_rotations_reach_the_declared_degrees_in_both_directions() -> None:
    drawn = drawn_matrices(RandomRotation(degrees=40))
    degrees = np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert degrees.min() == pytest.approx(-40, abs=2)
    assert degrees.max() == pytest.approx(40, abs=2)


def test_zooms_reach_the_declared_factor_independently_in_width_and_height() -> None:
    right, down = drawn_matrices(RandomZoom(factor=0.1))[:, [0, 1], [0, 1]].T
    for side in (right, down):
        assert (side.min(), side.max()) == (pytest.approx(0.9, abs=0.01), pytest.approx(1.1, abs=0.01))
    assert abs(np.corrcoef(right, down)[0, 1]) < 0.2


def test_a_zoom_may_keep_proportions() -> None:
    right, down = drawn_matrices(RandomZoom(factor=0.5, keep_proportions=True), 20)[:, [0, 1], [0, 1]].T
    np.testing.assert_array_equal(right, down)


def test_shifts_reach_the_declared_fraction_of_each_side() -> None:
    right, down = drawn_matrices(RandomShift(horizontal=0.5, vertical=0.25))[:, [0, 1], 2].T
    assert (right.min(), right.max()) == (pytest.approx(-4.5, abs=0.2), pytest.approx(4.5, abs=0.2))
    assert (down.min(), down.max()) == (pytest.approx(-3.5, abs=0.2), pytest.approx(3.5, abs=0.2))


def test_shears_reach_the_declared_degrees() -> None:
    drawn = drawn_matrices(RandomShear(horizontal=20, vertical=5))
    lean, rise = np.degrees(np.arctan(drawn[:, 0, 1])), np.degrees(np.arctan(drawn[:, 1, 0]))
    assert (lean.min(), lean.max()) == (pytest.approx(-20, abs=1), pytest.approx(20, abs=1))
    assert (rise.min(), rise.max()) == (pytest.approx(-5, abs=0.3), pytest.approx(5, abs=0.3))
