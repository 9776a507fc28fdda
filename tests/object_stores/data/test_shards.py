"""Shards in an object store are read by ranges through their index: no request asks for a whole one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model_trainer import TFRecords
from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.tfrecords import records
from model_trainer.storage.objects import versions

Upload = Callable[[Path, str], None]
NUM_RECORDS = 40


def contents(examples: Examples) -> list[bytes]:
    return [examples.images.read(int(row)) for row in examples.rows]


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the ranges that are requested from the store."""
    sizes: list[int] = []
    read = versions.read_range_version

    def counting(bucket: object, url: object, start: int, size: int, tag: str = "") -> bytes:
        sizes.append(size)
        return read(bucket, url, start, size, tag)  # type: ignore[arg-type]

    monkeypatch.setattr(versions, "read_range_version", counting)
    return sizes


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two TFRecord files."""
    folder, random = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for shard in range(2):
        with tf.io.TFRecordWriter(str(folder / f"train-{shard}.tfrecord")) as writer:
            for number in range(NUM_RECORDS):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[random.bytes(1000 + number)]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3]))
                features = tf.train.Features(feature={"image/encoded": image, "image/class/label": label})
                writer.write(tf.train.Example(features=features).SerializeToString())
    return folder


def test_records_of_a_store_are_those_of_the_disk(
    shards: Path, bucket: str, upload: Upload, requested: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BLOCK_BYTES", 5000)
    upload(shards, f"{bucket}/a")
    local, remote = TFRecords(shards / "*.tfrecord").read(), TFRecords(f"{bucket}/a/train-*.tfrecord").read()
    np.testing.assert_array_equal(remote.labels, local.labels)
    assert contents(remote) == contents(local)
    assert max(requested) == 5000


def test_a_record_larger_than_a_block_is_read(
    shards: Path, bucket: str, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BLOCK_BYTES", 100)
    upload(shards, f"{bucket}/a")
    path = f"{bucket}/a/train-0.tfrecord"
    assert list(records.read_records(path)) == list(records.read_records(str(shards / "train-0.tfrecord")))


def test_a_damaged_record_in_a_store_is_named(
    shards: Path, tmp_path: Path, bucket: str, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BLOCK_BYTES", 5000)
    data = bytearray((shards / "train-0.tfrecord").read_bytes())
    starts = [start for start, _ in records.read_records(str(shards / "train-0.tfrecord"))]
    data[starts[30] + 100] ^= 1
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.tfrecord").write_bytes(data)
    upload(tmp_path / "bad", bucket)
    with pytest.raises(DataError, match=f"30 records were read, then the one at byte {starts[30] - 12} of {len(data)}"):
        TFRecords(f"{bucket}/a.tfrecord").read()
