from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from model_trainer.pipeline.augment import affine, compose, move_boxes, move_points
from model_trainer.pipeline.augment.transform import make_matrix, stretch

HEIGHT, WIDTH = 30, 50
MIRRORED = make_matrix(-1.0, 0.0, float(WIDTH), 0.0, 1.0, 0.0)
QUARTER_TURN = make_matrix(0.0, 1.0, 0.0, -1.0, 0.0, float(WIDTH))  # counter-clockwise; the image is then 50 by 30

repeatable = settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink])
numbers = st.floats(-3, 3, width=32)
offsets = st.floats(-40, 40, width=32)
transforms = st.tuples(numbers, numbers, offsets, numbers, numbers, offsets).map(lambda rows: make_matrix(*rows))
# TensorFlow may set the processor to treat numbers below 1e-38 as 0.
along_x = st.floats(0, WIDTH, width=32, allow_subnormal=False)
along_y = st.floats(0, HEIGHT, width=32, allow_subnormal=False)
fractions = st.floats(0, 1, width=32)


@st.composite
def boxes(draw: Callable[..., float]) -> np.ndarray:
    left, right = sorted(
        (
            draw(along_x),
            draw(along_x),
        )
    )
    top, bottom = sorted(
        (
            draw(along_y),
            draw(along_y),
        )
    )
    return np.array([[left, top, right, bottom]], np.float32)


def test_points_are_moved_by_the_matrix() -> None:
    points = np.random.default_rng(0).uniform(-90, 90, (7, 2)).astype(np.float32)
    transform = make_matrix(0.5, -2.0, 11.0, 1.5, 0.25, -3.0)
    expected = np.c_[points, np.ones(7)].astype(np.float64) @ transform.numpy().T.astype(np.float64)
    np.testing.assert_allclose(move_points(tf.constant(points), transform), expected[:, :2], rtol=1e-5)


@pytest.mark.parametrize("move", [move_points, lambda boxes, transform: move_boxes(boxes, transform, HEIGHT, WIDTH)])
def test_each_image_of_a_batch_has_its_own_transform(move: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> None:
    shape = (2, 5, 2 if move is move_points else 4)
    batch = tf.constant(np.random.default_rng(1).uniform(0, 30, shape), tf.float32)
    moved = move(batch, tf.stack([MIRRORED, QUARTER_TURN]))
    np.testing.assert_array_equal(moved[0], move(batch[0], MIRRORED))
    np.testing.assert_array_equal(moved[1], move(batch[1], QUARTER_TURN))


def test_an_image_may_have_no_boxes() -> None:
    assert move_boxes(tf.zeros((0, 4)), MIRRORED, HEIGHT, WIDTH).shape == (0, 4)


def test_a_box_keeps_the_order_of_its_coordinates_when_sides_are_swapped() -> None:
    box = tf.constant([[5.0, 3.0, 20.0, 9.0]])
    assert move_boxes(box, MIRRORED, HEIGHT, WIDTH).numpy().tolist() == [[30, 3, 45, 9]]
    assert move_boxes(box, QUARTER_TURN, WIDTH, HEIGHT).numpy().tolist() == [[3, 30, 9, 45]]


def test_a_rotated_box_becomes_the_bounding_box_of_its_corners() -> None:
    turned = affine.transform_of(affine.rotation(45.0, 40.0, 40.0))
    half = 10 * np.sqrt(2)
    moved = move_boxes(tf.constant([[10.0, 10.0, 30.0, 30.0]]), turned, 40, 40)
    np.testing.assert_allclose(moved, [[20 - half, 20 - half, 20 + half, 20 + half]], rtol=1e-5)


def test_a_box_is_clipped_at_the_edges_and_empty_outside() -> None:
    moved = make_matrix(1.0, 0.0, -25.0, 0.0, 1.0, 10.0)
    given_boxes = tf.constant([[20.0, 4.0, 40.0, 28.0], [2.0, 2.0, 20.0, 8.0]])
    assert move_boxes(given_boxes, moved, HEIGHT, WIDTH).numpy().tolist() == [[0, 14, 15, 30], [0, 12, 0, 18]]


@repeatable
@given(boxes())
def test_the_identity_does_not_change_boxes_inside_the_image(box: np.ndarray) -> None:
    np.testing.assert_array_equal(move_boxes(tf.constant(box), tf.eye(3), HEIGHT, WIDTH), box)


@repeatable
@given(boxes(), transforms)
def test_moved_boxes_lie_inside_the_image(box: np.ndarray, transform: tf.Tensor) -> None:
    left, top, right, bottom = move_boxes(tf.constant(box), transform, HEIGHT, WIDTH).numpy()[0]
    assert 0 <= left <= right <= WIDTH
    assert 0 <= top <= bottom <= HEIGHT


@repeatable
@given(boxes(), transforms, fractions, fractions)
def test_a_point_in_a_box_stays_in_the_moved_box_if_it_stays_in_the_image(
    box: np.ndarray, transform: tf.Tensor, across: float, down: float
) -> None:
    left, top, right, bottom = box[0].astype(float)
    point = np.array([left + across * (right - left), top + down * (bottom - top), 1])
    x, y, _ = transform.numpy().astype(float) @ point
    new = move_boxes(tf.constant(box), transform, HEIGHT, WIDTH).numpy()[0]
    if 0 <= x <= WIDTH and 0 <= y <= HEIGHT:
        assert new[0] - 1e-3 <= x <= new[2] + 1e-3
        assert new[1] - 1e-3 <= y <= new[3] + 1e-3


@repeatable
@given(boxes(), transforms)
def test_a_moved_box_is_the_smallest_that_holds_the_moved_corners(box: np.ndarray, transform: tf.Tensor) -> None:
    left, top, right, bottom = box[0].astype(float)
    corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    moved = (corners @ transform.numpy().T.astype(float))[:, :2]
    hull = np.clip(np.r_[moved.min(axis=0), moved.max(axis=0)], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    np.testing.assert_allclose(move_boxes(tf.constant(box), transform, HEIGHT, WIDTH)[0], hull, atol=1e-3)


def test_composed_transforms_are_applied_first_to_last() -> None:
    point, wider = tf.constant([[7.0, 4.0]]), stretch((0, 0, 5, 5), (1, 2, 5, 10))
    expected = move_points(move_points(move_points(point, MIRRORED), QUARTER_TURN), wider)
    np.testing.assert_allclose(move_points(point, compose(MIRRORED, QUARTER_TURN, wider)), expected)
    np.testing.assert_array_equal(compose(), np.eye(3))


def test_stretch_maps_one_region_to_another() -> None:
    moved = stretch((2, 10, 20, tf.constant(40)), (0, 0, 10, 20))
    assert moved.numpy().tolist() == [[0.5, 0, -5], [0, 0.5, -1], [0, 0, 1]]


def test_a_transform_that_flattens_the_image_gives_empty_boxes() -> None:
    flat = affine.shear(1.0, 1.0, float(HEIGHT), float(WIDTH))
    moved = move_boxes(tf.constant([[5.0, 3.0, 20.0, 9.0]]), affine.transform_of(flat), HEIGHT, WIDTH)
    assert moved.numpy().tolist() == [[0, 0, 0, 0]]


def test_points_and_boxes_are_moved_inside_a_pipeline() -> None:
    box = tf.constant([[5.0, 3.0, 20.0, 9.0]])
    images = tf.data.Dataset.from_tensors(box).map(lambda box: move_boxes(box, MIRRORED, HEIGHT, WIDTH))
    assert images.get_single_element().numpy().tolist() == [[30, 3, 45, 9]]
