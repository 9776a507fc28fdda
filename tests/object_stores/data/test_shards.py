"""Shards in an object store are read in byte ranges through their index, never as a whole."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model_trainer import RecordIO, TFRecords
from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.recordio import stored
from model_trainer.sources.recordio.framing import frame_record
from model_trainer.sources.tfrecords import records
from model_trainer.storage import cached
from model_trainer.storage.objects import versions
from tests.object_stores.proxy import Fault, Proxy

Upload = Callable[[Path, str], None]
NUM_RECORDS = 40
MAGIC = struct.pack("<I", 0xCED7230A)


def contents(examples: Examples) -> list[bytes]:
    return [examples.images.read(int(row)) for row in examples.rows]


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes in bytes of all ranges that are requested from the store."""
    sizes: list[int] = []
    read = versions.read_range_version

    def counting(bucket: object, url: object, start: int, size: int, etag: str = "") -> bytes:
        sizes.append(size)
        return read(bucket, url, start, size, etag)  # type: ignore[arg-type]

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


def test_tfrecords_in_a_store_are_read_as_on_disk(
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
    assert records.read_object_records(path, records.version_of(path), list) == list(
        records.read_records(str(shards / "train-0.tfrecord"))
    )


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


def test_a_damaged_record_length_does_not_cause_a_large_read(shards: Path, requested: list[int], bucket: str) -> None:
    data = (shards / "train-0.tfrecord").read_bytes()
    starts = [start for start, _ in records.read_records(str(shards / "train-0.tfrecord"))]
    assert records._end_of_records(data) == (len(data), len(data) + 12)
    damaged = bytearray(data)
    damaged[starts[30] - 12 + 3] ^= 1  # 16 MB more
    assert records._end_of_records(damaged) == (starts[30] - 12, 0)
    blocks = [bytes(damaged[first : first + 5000]) for first in range(0, len(damaged), 5000)]
    remaining = iter(blocks)
    content = b"".join(records._whole_records(1 << 30, remaining))
    assert damaged.startswith(content)
    assert len(content) < starts[30] + 5000
    assert list(remaining)  # nothing more is read


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.rec` file with two labels per record, one image that contains the magic word, and one empty image."""
    folder, random = tmp_path_factory.mktemp("packed"), np.random.default_rng(1)
    images = [random.bytes(500 + number) for number in range(NUM_RECORDS)]
    images[5] = images[5][:100] + MAGIC + images[5][:50] + MAGIC
    images[7] = b""
    with (folder / "train.rec").open("wb") as file:
        for number, image in enumerate(images):
            header = struct.pack("<IfQQ2f", 2, 0.0, number, 0, number % 3, 1.0)
            file.writelines(frame_record(header + image))
    return folder


def test_a_rec_file_in_a_store_is_read_as_on_disk(
    packed: Path, bucket: str, upload: Upload, requested: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_BLOCK_BYTES", 2000)
    upload(packed, bucket)
    local, remote = (RecordIO(f"{folder}/train.rec", labels="indices").read() for folder in (packed, bucket))
    assert contents(remote) == contents(local)
    assert remote.names() == [name.replace(str(packed), bucket) for name in local.names()]
    np.testing.assert_array_equal(remote.num_bytes, local.num_bytes)
    np.testing.assert_array_equal(remote.label_rows().dense(3), local.label_rows().dense(3))
    assert max(requested) == 2000


def test_the_index_of_a_rec_file_is_cached_until_the_object_changes(
    packed: Path, tmp_path: Path, bucket: str, upload: Upload, requested: list[int]
) -> None:
    upload(packed, bucket)
    RecordIO(f"{bucket}/train.rec", labels="indices").read()
    requested.clear()
    RecordIO(f"{bucket}/train.rec", labels="indices").read()
    assert not requested
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "train.rec").write_bytes((packed / "train.rec").read_bytes()[: -560 - 560])
    upload(tmp_path / "new", bucket)
    with pytest.raises(DataError, match=r"train.rec is damaged: \d+ records were read"):
        RecordIO(f"{bucket}/train.rec", labels="indices").read()


def test_damage_in_the_middle_of_a_rec_file_is_named(
    packed: Path, tmp_path: Path, bucket: str, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_BLOCK_BYTES", 2000)
    data = bytearray((packed / "train.rec").read_bytes())
    offset = int(RecordIO(packed / "train.rec", labels="indices").read().images.offsets[20])  # type: ignore[attr-defined]
    data[offset] ^= 1
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.rec").write_bytes(data)
    messages = []
    upload(tmp_path / "bad", bucket)
    for folder in (tmp_path / "bad", bucket):
        with pytest.raises(DataError) as raised:
            RecordIO(f"{folder}/train.rec").read()
        messages.append(str(raised.value).replace(str(folder), ""))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["train-0.tfrecord", "train.rec"])
def test_images_damaged_in_transit_are_read_again(
    shards: Path, packed: Path, proxy: Proxy, bucket: str, s3: Any, configure: Callable[..., None], name: str
) -> None:
    folder, source = (packed, RecordIO) if name.endswith(".rec") else (shards, TFRecords)
    s3.client().put_object(Bucket=bucket[5:], Key=name, Body=(folder / name).read_bytes())
    path, options = f"{bucket}/{name}", {"labels": "indices"} if name.endswith(".rec") else {}
    local = source(folder / name, **options).read()
    content = (folder / name).read_bytes()
    position = content.index(local.images.read(20)) + 50  # in an image: only its checksum reveals the damage
    proxy.faults.append(Fault("GET", name, corrupt=position))
    if source is TFRecords:
        proxy.faults.clear()  # the checksums of this format would fail while the index is read
    examples = source(path, **options).read()
    assert contents(examples) == contents(local)
    configure(cache_folder=f"{cached.usage().folder}/another")
    proxy.faults.append(Fault("GET", name, corrupt=10))
    assert examples.images.read(20) == local.images.read(20)
    proxy.faults.append(Fault("GET", name, corrupt=10, times=2))
    with pytest.raises(OSError, match="its content does not have its checksum"):
        examples.images.read(21)
    assert not examples.images.is_cached(21)


def test_labels_damaged_in_transit_are_read_again(packed: Path, proxy: Proxy, bucket: str, s3: Any) -> None:
    s3.client().put_object(Bucket=bucket[5:], Key="train.rec", Body=(packed / "train.rec").read_bytes())
    proxy.faults.append(Fault("GET", "train.rec", corrupt=8 + 24 + 2))  # in a label of the first record
    local, remote = (RecordIO(f"{folder}/train.rec", labels="indices") for folder in (packed, bucket))
    np.testing.assert_array_equal(remote.read().label_rows().dense(3), local.read().label_rows().dense(3))
    assert proxy.count("GET", "train.rec") == 2
