"""Near-duplicates: which changes of an image count, and that the search finds all pairs that brute force finds."""

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
    hashes = [perceptual_hash(np.asarray(each.convert("RGB"))) for each in (first, second)]
    bits = np.array([each.bits for each in hashes], np.uint64)
    return len(near_pairs(bits, np.array([each.colors for each in hashes]))) == 1


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [compressed, lambda image: image.resize((160, 107)), lambda image: image.point(lambda value: min(255, value + 3))],
    ids=["compressed", "smaller", "brighter"],
)
def test_a_slightly_changed_copy_of_a_photo_is_a_near_duplicate(change: object) -> None:
    assert is_near(photo(), change(photo()))  # type: ignore[operator]


def test_another_photo_is_not_a_near_duplicate() -> None:
    assert not is_near(photo(), Image.fromarray(load_sample_image("flower.jpg")))


def test_the_same_photo_in_other_colors_is_not_a_near_duplicate() -> None:
    red, blue, green = photo().split()
    assert not is_near(photo(), Image.merge("RGB", (blue, green, red)))


def test_a_single_pixel_has_a_perceptual_hash_and_is_blank() -> None:
    assert perceptual_hash(np.full((1, 1, 3), 7, np.uint8)).is_blank


def test_the_search_finds_the_same_pairs_as_brute_force() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 400, dtype=np.uint64)
    for copy, distance in enumerate(np.repeat([0, 1, 2, 3, 4, 5], 30)):
        flipped = sum(1 << int(bit) for bit in random.choice(64, distance, replace=False))
        hashes = np.append(hashes, hashes[copy] ^ np.uint64(flipped))
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1)
    distances = (bits[:, None] != bits[None]).sum(-1)
    expected = {(i, j) for i, j in zip(*np.nonzero(distances <= 3), strict=True) if i < j}
    pairs = [tuple(sorted(map(int, pair))) for pair in near_pairs(hashes, np.zeros((len(hashes), 48), np.uint8))]
    assert len(expected) > 100
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected


def test_groups_are_disjoint_and_each_member_is_near_the_first() -> None:
    # 0, 1, 3, 7, ...: each differs from the next in one bit, so that they form a chain.
    hashes = np.array([(1 << number) - 1 for number in range(20)], np.uint64)
    groups = near_groups(hashes, np.zeros((20, 48), np.uint8))
    members = np.concatenate(groups)
    assert len(members) == len(set(members))
    assert all(np.bitwise_count(hashes[group] ^ hashes[group[0]]).max() <= 3 for group in groups)


def test_many_equal_hashes_give_a_limited_number_of_pairs() -> None:
    hashes = np.full(20_000, 5, np.uint64)
    assert len(near_pairs(hashes, np.zeros((20_000, 48), np.uint8))) <= 32 * 20_000
