"""The same labels mean the same in a manifest, a `.rec`, a `.lst` and TFRecord files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.errors import DataError
from model_trainer.sources import Manifest, MxnetList, RecordIO, TFRecords
from model_trainer.sources.source import Source

Labels = Sequence[Any]  # for each image a number or a name, or a list of them
Reader = Callable[..., Source]
NAN = float("nan")


def listed(label: Any) -> list[Any]:
    return list(label) if isinstance(label, list) else [label]


def manifest(folder: Path, values: Labels, **options: Any) -> Source:
    column = "labels" if isinstance(values[0], list) else "label"
    path = folder / "file"
    path.write_text(
        "".join(json.dumps({"file": f"{row}.png", column: label}) + "\n" for row, label in enumerate(values))
    )
    return Manifest(path, format="jsonl", **options)


def recordio(folder: Path, values: Labels, **options: Any) -> Source:
    path = folder / "file"
    records = []
    for row, label in enumerate(values):
        numbers = listed(label)
        record = struct.pack(f"<IfQQ{len(numbers)}f", len(numbers), 0.0, row, 0, *numbers) + b"image"
        records.append(struct.pack("<II", 0xCED7230A, len(record)) + record + b"\0" * (-len(record) % 4))
    path.write_bytes(b"".join(records))
    return RecordIO(path, **options)


def mxnet_list(folder: Path, values: Labels, **options: Any) -> Source:
    path = folder / "file"
    lines = ["\t".join(map(str, [row, *listed(label), f"{row}.png"])) for row, label in enumerate(values)]
    path.write_text("\n".join(lines))
    return MxnetList(path, **options)


def tfrecords(folder: Path, values: Labels, **options: Any) -> Source:
    path = folder / "file"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in values:
            several = listed(label)
            if several and isinstance(several[0], str):
                texts = tf.train.BytesList(value=[value.encode() for value in several])
                feature = tf.train.Feature(bytes_list=texts)
            else:
                feature = tf.train.Feature(int64_list=tf.train.Int64List(value=several))
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"image"]))
            features = {"image/encoded": image, "image/class/label": feature}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return TFRecords(path, **options)


# How messages call the location of the second row.
LOCATIONS = {manifest: "file line 2", recordio: "file#1", mxnet_list: r"file \(1.png\)", tfrecords: "file#1"}

of_numbers = pytest.mark.parametrize("reader", [manifest, recordio, mxnet_list, tfrecords])
of_names = pytest.mark.parametrize("reader", [manifest, tfrecords])
of_rows = pytest.mark.parametrize("reader", [manifest, recordio, mxnet_list])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "cache"))


def single(source: Source) -> tuple[list[int], tuple[str, ...]]:
    examples = source.read()
    assert isinstance(examples.labels, np.ndarray)
    assert examples.labels.dtype == np.int32
    return examples.labels.tolist(), examples.classes


def dense(source: Source) -> np.ndarray:
    examples = source.read()
    assert examples.label_kind == "tags"
    return examples.label_rows().dense(len(examples.classes))


@of_numbers
def test_numbers_are_class_indices(reader: Reader, tmp_path: Path) -> None:
    assert single(reader(tmp_path, [2, 0, 2])) == ([2, 0, 2], ("0", "1", "2"))


@of_numbers
def test_declared_classes_are_the_names_of_the_numbers(reader: Reader, tmp_path: Path) -> None:
    assert single(reader(tmp_path, [1, 0], classes=("cat", "dog", "eel"))) == ([1, 0], ("cat", "dog", "eel"))


@of_numbers
def test_several_numbers_are_tags(reader: Reader, tmp_path: Path) -> None:
    assert dense(reader(tmp_path, [[0, 2], [1]])).tolist() == [[1, 0, 1], [0, 1, 0]]


@of_numbers
@pytest.mark.parametrize(
    ("second", "classes", "message"),
    [
        (2, ("a", "b"), "label 2 is not a class: the class indices are 0 to 1."),
        (-1, None, "label -1 should be a class index, a whole number from 0 to 16777215."),
    ],
)
def test_a_number_without_a_class_is_reported_with_its_location(
    reader: Reader, second: int, classes: tuple[str, ...] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"{LOCATIONS[reader]}: {message}"):
        reader(tmp_path, [0, second], classes=classes).read()


@of_names
def test_names_are_sorted(reader: Reader, tmp_path: Path) -> None:
    assert single(reader(tmp_path, ["dog", "cat", "dog"])) == ([1, 0, 1], ("cat", "dog"))


@of_names
def test_a_name_that_is_not_a_declared_class_is_reported_with_its_location(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{LOCATIONS[reader]}: label 'dgo' is not a class. Did you mean 'dog'\?"):
        reader(tmp_path, ["cat", "dgo"], classes=("cat", "dog")).read()


@of_names
def test_without_any_label_the_classes_have_to_be_given(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="file: no image has a label. Name the classes"):
        reader(tmp_path, [[], []]).read()
    assert dense(reader(tmp_path, [[], []], classes=("cat",))).tolist() == [[0], [0]]


@of_rows
def test_rows_of_zeros_and_ones_are_multi_hot(reader: Reader, tmp_path: Path) -> None:
    source = reader(tmp_path, [[1, 0, 1], [0.25, 0, -1]], classes=("a", "b", "c"))
    np.testing.assert_array_equal(dense(source), [[1, 0, 1], [0.25, 0, NAN]])


@of_rows
@pytest.mark.parametrize(
    ("rows", "level", "text"),
    [
        ([[1, 1, 0], [0, 0, 1]], "INFO", "Set labels='indices' if they are class indices."),
        ([[0, 1], [1, 0]], "WARNING", "They could also be class indices; in that case set labels='indices'."),
        ([[0, 1], [1, 1]], "INFO", "Set labels='indices' if they are class indices."),
    ],
)
def test_multi_hot_rows_that_may_be_class_indices_give_a_warning(
    reader: Reader, rows: Labels, level: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="absl")
    reader(tmp_path, rows).read()
    lines = [line for line in caplog.records if "read as multi-hot rows" in line.getMessage()]
    assert [(line.levelname, line.getMessage().endswith(text)) for line in lines] == [(level, True)]


@of_rows
@pytest.mark.parametrize(
    ("second", "classes", "message"),
    [
        ([1], None, "has 1 numbers, the first row has 2; a multi-hot row has a number for each class"),
        (
            [1, 0],
            ("a", "b", "c"),
            "has 2 numbers, the class list has 3; a multi-hot row has a number for each class",
        ),
        ([1, 7], None, "has .*7.*; a multi-hot row holds 0 and 1, -1 .*for unknown, or something between 0 and 1"),
    ],
)
def test_a_row_that_is_not_multi_hot_is_named(
    reader: Reader, second: list[int], classes: tuple[str, ...] | None, message: str, tmp_path: Path
) -> None:
    first = [0] * (2 if classes is None else len(classes))
    with pytest.raises(DataError, match=f"{LOCATIONS[reader]}.* {message}"):
        reader(tmp_path, [first, second], labels="multi_hot", classes=classes).read()
