"""Near duplicates: what counts as one, and that the search finds what comparing each with each finds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from model_trainer.diagnosis.data.near import near_groups, near_pairs
from model_trainer.diagnosis.data.perceptual_hash import perceptual_hash


def photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg"))


def is_near(first: Image.Image, second: Image.Image) -> bool:
    looks = [perceptual_hash(np.asarray(each.convert("RGB"))) for each in (first, second)]
    bits = np.array([look.bits for look in looks], np.uint64)
    return len(near_pairs(bits, np.array([look.colours for look in looks]))) == 1


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [compressed, lambda image: image.resize((160, 107)), lambda image: image.point(lambda value: min(255, value + 3))],
    ids=["compressed", "smaller", "brighter"],
)
def test_a_changed_copy_of_a_photo_is_near(change: object) -> None:
    assert is_near(photo(), change(photo()))  # type: ignore[operator]


def test_another_photo_is_not_near() -> None:
    assert not is_near(photo(), Image.fromarray(load_sample_image("flower.jpg")))


def test_the_same_shape_in_another_colour_is_not_near() -> None:
    red, blue, green = photo().split()
    assert not is_near(photo(), Image.merge("RGB", (blue, green, red)))


def test_images_of_one_pixel_have_a_look() -> None:
    assert perceptual_hash(np.full((1, 1, 3), 7, np.uint8)).is_blank


def test_the_search_finds_what_comparing_all_pairs_finds() -> None:
    random = np.random.default_rng(0)
    looks = random.integers(0, 2**64, 400, dtype=np.uint64)
    for copy, distance in enumerate(np.repeat([0, 1, 2, 3, 4, 5], 30)):
        flipped = sum(1 << int(bit) for bit in random.choice(64, distance, replace=False))
        looks = np.append(looks, looks[copy] ^ np.uint64(flipped))
    bits = np.unpackbits(looks.view(np.uint8).reshape(-1, 8), axis=1)
    distances = (bits[:, None] != bits[None]).sum(-1)
    expected = {(i, j) for i, j in zip(*np.nonzero(distances <= 3), strict=True) if i < j}
    found = [tuple(sorted(map(int, pair))) for pair in near_pairs(looks, np.zeros((len(looks), 48), np.uint8))]
    assert len(expected) > 100
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_no_image_is_in_two_groups_and_each_is_near_its_leader() -> None:
    # 0, 1, 3, 7, ...: each one bit from the next, so that all of them are one chain.
    looks = np.array([(1 << number) - 1 for number in range(20)], np.uint64)
    groups = near_groups(looks, np.zeros((20, 48), np.uint8))
    members = np.concatenate(groups)
    assert len(members) == len(set(members))
    assert all(np.bitwise_count(looks[group] ^ looks[group[0]]).max() <= 3 for group in groups)


def test_a_flood_of_equal_looks_does_not_explode() -> None:
    looks = np.full(20_000, 5, np.uint64)
    assert len(near_pairs(looks, np.zeros((20_000, 48), np.uint8))) <= 32 * 20_000
