"""Listings of objects: cached for a limited time, and of any length in little memory."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model_trainer import ImageFolder
from model_trainer.cli.main import app
from model_trainer.diagnosis import data
from model_trainer.storage import cached, files
from model_trainer.storage.objects import listing as module
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.listing import list_objects
from model_trainer.storage.objects.own_files import folder_of_listings
from model_trainer.storage.objects.urls import parse_url

URL = parse_url("s3://photos/train")


class Paged:
    """A stand-in for obstore: class folders with any number of keys, which are generated page by page."""

    def __init__(self, num_classes: int, per_class: int, is_sorted: bool = True) -> None:
        self.num_classes = num_classes
        self.per_class = per_class
        self.is_sorted = is_sorted

    def list_with_delimiter(self, store: object, prefix: str | None = None) -> dict[str, Any]:
        return {"common_prefixes": [f"{prefix}/{number:04}" for number in range(self.num_classes)], "objects": []}

    def list(self, store: object, prefix: str, chunk_size: int) -> Iterator[list[dict[str, Any]]]:
        time = datetime.now(UTC)
        for first in range(0, self.per_class, chunk_size):
            numbers = range(first, min(first + chunk_size, self.per_class))
            yield [
                {
                    "path": f"{prefix}/{number:08}.jpg",
                    "size": number,
                    "e_tag": f'"{number:032x}"',
                    "last_modified": time,
                }
                for number in (numbers if self.is_sorted else reversed(numbers))
            ]


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Paged]:
    obstore = pytest.importorskip("obstore")

    def make(*arguments: Any, **options: Any) -> Paged:
        stand_in = Paged(*arguments, **options)
        for name in ("list", "list_with_delimiter"):
            monkeypatch.setattr(obstore, name, getattr(stand_in, name))
        return stand_in

    return make


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_listing_has_keys_sizes_and_etags_in_the_order_of_keys(
    paged: Callable[..., Paged], tmp_path: Path, is_sorted: bool
) -> None:
    paged(3, 2500, is_sorted=is_sorted)
    listing = list_objects(Bucket(None), URL, folder_of_listings(tmp_path), 60.0)
    assert len(listing) == 7500
    keys = [listing.keys[start:end] for start, end in zip(listing.starts, listing.starts[1:], strict=False)]
    assert keys == [b"train/%04d/%08d.jpg" % (number // 2500, number % 2500) for number in range(7500)]
    np.testing.assert_array_equal(listing.sizes, np.tile(np.arange(2500), 3))
    assert listing.etags[2501] == b'"%032x"' % 1


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_keys(
    paged: Callable[..., Paged], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEMORY_BYTES", 1 << 16)

    def peak(per_class: int) -> int:
        paged(2, per_class)
        tracemalloc.start()
        listing = list_objects(Bucket(None), URL, folder_of_listings(tmp_path), 0.0)
        size = tracemalloc.get_traced_memory()[1] - 8 * len(listing)  # `starts` is an array in memory
        tracemalloc.stop()
        assert len(listing) == 2 * per_class
        return size

    assert peak(40_000) < 1.3 * peak(10_000)


def test_a_listing_is_cached_for_the_configured_time(bucket: str, configure: Callable[..., None]) -> None:
    files.write(f"{bucket}/train/cat/1.jpg", b"1")
    assert len(ImageFolder(f"{bucket}/train").read()) == 1
    files.write(f"{bucket}/train/cat/2.jpg", b"2")
    assert len(ImageFolder(f"{bucket}/train").read()) == 1
    configure(listing_seconds=0.0)
    assert len(ImageFolder(f"{bucket}/train").read()) == 2


def test_doctor_refreshes_the_cached_listing_also_for_later_trainings(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(f"{bucket}/train/cat/1.jpg", b"1")
    assert len(ImageFolder(f"{bucket}/train").read()) == 1
    files.write(f"{bucket}/train/cat/2.jpg", b"2")
    counts = []

    def run_doctor(path: str, *arguments: object, **options: object) -> int:
        counts.append(len(ImageFolder(path).read()))
        return 0

    monkeypatch.setattr(data, "run_doctor", run_doctor)
    CliRunner().invoke(app, ["doctor", f"{bucket}/train"])
    assert counts == [2]
    assert len(ImageFolder(f"{bucket}/train").read()) == 2


def test_a_damaged_cached_listing_is_replaced(bucket: str, tmp_path: Path) -> None:
    files.write(f"{bucket}/train/cat/1.jpg", b"1")
    ImageFolder(f"{bucket}/train").read()
    (sizes,) = (tmp_path / "cache" / "listings").glob("*/sizes")
    os.truncate(sizes, 0)
    assert ImageFolder(f"{bucket}/train").read().num_bytes.tolist() == [1]


@pytest.mark.parametrize("content", ["[]", "null", '{"time": "x"}', "[" * 100_000, '{"time": 1e999}', "\xff", None])
def test_a_cached_listing_with_damaged_metadata_is_replaced(
    paged: Callable[..., Paged], tmp_path: Path, content: str | None
) -> None:
    paged(1, 1)
    folder = folder_of_listings(tmp_path)
    list_objects(Bucket(None), URL, folder, 60.0)
    (description,) = folder.path.glob("*/listed.json")
    description.unlink()
    if content is None:
        os.mkfifo(description)
    else:
        description.write_text(content, "latin1")
    paged(1, 2)
    assert len(list_objects(Bucket(None), URL, folder, 60.0)) == 2
    assert len(list_objects(Bucket(None), URL, folder, 60.0)) == 2


@pytest.mark.parametrize(
    ("changed", "is_forgotten"),
    [
        ("s3://photos/train", True),
        ("s3://photos/train/cat/1.jpg", True),
        ("s3://photos", True),
        ("s3://photos/trainers", False),
        ("s3://photos/val", False),
        ("s3://photos-2/train", False),
        ("/photos/train", False),
    ],
)
def test_a_change_in_or_above_a_folder_invalidates_its_cached_listing(
    paged: Callable[..., Paged], tmp_path: Path, configure: Callable[..., None], changed: str, is_forgotten: bool
) -> None:
    configure(cache_folder=str(tmp_path))
    paged(1, 1)
    list_objects(Bucket(None), URL, folder_of_listings(tmp_path), 60.0)
    cached.forget_listings(changed)
    paged(1, 2)
    assert len(list_objects(Bucket(None), URL, folder_of_listings(tmp_path), 60.0)) == 1 + is_forgotten


def test_a_cache_folder_that_is_not_writable_is_not_an_error(
    bucket: str, tmp_path: Path, configure: Callable[..., None]
) -> None:
    (tmp_path / "file").touch()
    configure(cache_folder=str(tmp_path / "file"))
    files.write(f"{bucket}/train/cat/1.jpg", b"1")
    assert ImageFolder(f"{bucket}/train").read().names() == [f"{bucket}/train/cat/1.jpg"]


def test_a_listing_is_not_cached_on_a_full_disk(
    paged: Callable[..., Paged], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paged(1, 3)
    original = module._append

    def append(columns: Any, targets: Any, total: int) -> int:
        if Path(targets[0].name).is_relative_to(tmp_path):
            for column in columns:
                column.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(columns, targets, total)

    monkeypatch.setattr(module, "_append", append)
    with caplog.at_level("INFO", logger="absl"):
        assert len(list_objects(Bucket(None), URL, folder_of_listings(tmp_path), 60.0)) == 3
    assert "is full; the list of s3://photos is not cached" in caplog.text
    assert not list(tmp_path.glob("listings/*/sizes"))
