from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from model_trainer.errors import DataError
from model_trainer.pipeline.bad_images import BadImages


def add(bad_images: BadImages, path: Path) -> None:
    bad_images.add(str(path), path.read_bytes)


def bad(tmp_path: Path, count: int, num_examples: int) -> BadImages:
    bad_images = BadImages(max_count=2, max_fraction=0.1, num_examples=num_examples)
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
        add(bad_images, tmp_path / f"{number}.jpg")
    return bad_images


def test_an_unreadable_image_is_counted_once(tmp_path: Path) -> None:
    bad_images = bad(tmp_path, 2, 100)
    add(bad_images, tmp_path / "0.jpg")
    assert len(bad_images) == 2
    assert bad_images.reasons[str(tmp_path / "0.jpg")] == "is empty (0 bytes)"


@pytest.mark.parametrize(("count", "num_examples"), [(2, 10), (3, 30), (3, 1000)])
def test_a_few_unreadable_images_are_tolerated(tmp_path: Path, count: int, num_examples: int) -> None:
    bad(tmp_path, count, num_examples).check()


def test_more_unreadable_images_than_both_the_count_and_the_fraction_stop_the_run(tmp_path: Path) -> None:
    message = r"3 of 29 images could not be read[\s\S]*0\.jpg is empty[\s\S]*max_bad_fraction"
    with pytest.raises(DataError, match=message):
        bad(tmp_path, 3, 29).check()


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    bad_images = BadImages(0, 0.0, 1)
    add(bad_images, tmp_path / "none.jpg")
    assert list(bad_images.reasons.values()) == ["does not exist"]


def test_bad_images_csv_lists_all_bad_images_including_earlier_ones(tmp_path: Path) -> None:
    bad_images = bad(tmp_path, 1, 100)
    bad_images.write_to(tmp_path / "bad_images.csv")
    (tmp_path / "a, b.jpg").write_bytes(b"text")
    add(bad_images, tmp_path / "a, b.jpg")
    add(bad_images, tmp_path / "a, b.jpg")
    with open(tmp_path / "bad_images.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "reason"],
        [str(tmp_path / "0.jpg"), "is empty (0 bytes)"],
        [str(tmp_path / "a, b.jpg"), "is not an image"],
    ]


def test_without_bad_images_there_is_no_table(tmp_path: Path) -> None:
    bad(tmp_path, 0, 10).write_to(tmp_path / "bad_images.csv")
    assert not (tmp_path / "bad_images.csv").exists()


def test_a_crop_outside_the_image_is_reported_as_x_y_width_and_height(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    bad_images = BadImages(0, 0.0, 1)
    bad_images.add("small.png", (tmp_path / "small.png").read_bytes, crop=(100, 50, 20, 10))
    assert bad_images.reasons == {"small.png": "does not contain its crop [100, 50, 20, 10]"}
