"""TFRecord files, written by TensorFlow and compared with what its own reader gives."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer.config import Choice
from model_trainer.errors import DataError
from model_trainer.sources.source import Source
from model_trainer.sources.tfrecords import Features, TFRecords
from model_trainer.sources.tfrecords import index as index_module

Values = dict[str, list[int] | list[bytes] | list[float]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "cache"))


def image(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def example(values: Values) -> bytes:
    kinds = {
        int: lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v)),
        bytes: lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)),
        float: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v)),
    }
    feature = {key: kinds[type(v[0])](v) if v else tf.train.Feature() for key, v in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def labeled(number: int, *labels: int, **more: list[bytes]) -> Values:
    values: Values = {"image/encoded": [image(number)], "image/class/label": list(labels)}
    return values | {f"image/class/{key}": value for key, value in more.items()}


def write(path: Path | str, records: list[Values], compression: str | None = None) -> str:
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for values in records:
            writer.write(example(values))
    return str(path)


def read_by_tensorflow(paths: list[str]) -> list[tuple[bytes, int]]:
    spec = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string),
        "image/class/label": tf.io.FixedLenFeature((), tf.int64),
    }
    parsed = (tf.io.parse_single_example(record, spec) for record in tf.data.TFRecordDataset(paths))
    return [(each["image/encoded"].numpy(), int(each["image/class/label"])) for each in parsed]


def read_by_us(source: Source) -> list[tuple[bytes, int]]:
    examples = source.read()
    return [(examples.images.read(row), int(label)) for row, label in zip(examples.rows, examples.labels, strict=True)]


def test_images_and_labels_match_those_that_tensorflow_reads(tmp_path: Path) -> None:
    for shard in range(3):
        write(tmp_path / f"train-{shard}", [labeled(10 * shard + n, (shard + n) % 4) for n in range(5)])
    expected = read_by_tensorflow([str(tmp_path / f"train-{shard}") for shard in range(3)])
    assert read_by_us(TFRecords(tmp_path / "train-*")) == expected


def test_remote_files_are_read_through_tensorflows_file_systems() -> None:
    paths = [write(f"ram://bucket/remote-{shard}", [labeled(shard, shard)]) for shard in range(2)]
    assert read_by_us(TFRecords("ram://bucket/remote-*")) == read_by_tensorflow(paths)


def test_records_are_numbered_within_their_file(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, [labeled(0, 0), labeled(1, 1)]) for name in "ab")
    assert TFRecords((second, first)).read().names() == [f"{first}#0", f"{first}#1", f"{second}#0", f"{second}#1"]


def test_overlapping_patterns_give_each_file_once(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [labeled(0, 0)])
    assert len(TFRecords([tmp_path / "*", tmp_path / "a.*"]).read()) == 1


def test_a_thumbnail_with_the_same_first_bytes_is_not_mistaken_for_the_image(tmp_path: Path) -> None:
    image = b"\xff\xd8" + b"\0" * 400 + b"whole"
    path = write(tmp_path / "a", [{"a/thumbnail": [image[:300]], "image/encoded": [image], "image/class/label": [0]}])
    assert read_by_us(TFRecords(path)) == [(image, 0)]


def test_a_record_without_an_image_is_kept_as_an_empty_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [{"image/encoded": [], "image/class/label": [0]}])
    assert TFRecords(path).read().num_bytes.tolist() == [0]


def test_texts_of_the_records_name_the_classes(tmp_path: Path) -> None:
    records = [labeled(0, 3, text=[b"crane"]), labeled(1, 1, text=[b"crane"]), labeled(2, 2, text=[b"dog"])]
    classes = TFRecords(write(tmp_path / "a", records)).read().classes
    assert classes == ("0", "crane (1)", "dog", "crane (3)")


def test_texts_that_contradict_each_other_do_not_name_a_class(tmp_path: Path) -> None:
    write(tmp_path / "a", [labeled(0, 0, text=[b"a red cat"])])
    write(tmp_path / "b", [labeled(0, 0, text=[b"a green cat"])])
    assert TFRecords(tmp_path / "?").read().classes == ("0",)


def test_declared_classes_take_precedence_over_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [labeled(0, 1, text=[b"n02084071"])])
    assert TFRecords(path, classes=("cat", "dog")).read().classes == ("cat", "dog")


def test_labels_may_start_at_1(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [labeled(0, 1, text=[b"cat"]), labeled(1, 2, text=[b"dog"])])
    examples = TFRecords(path, label_offset=1).read()
    assert (examples.labels.tolist(), examples.classes) == ([0, 1], ("cat", "dog"))


def test_classes_may_be_written_as_text(tmp_path: Path) -> None:
    write(tmp_path / "a", [{"jpeg": [image(0)], "kind": [b"dog"]}])
    write(tmp_path / "b", [{"jpeg": [image(1)], "kind": [b"cat"]}, {"jpeg": [image(2)], "kind": [b"dog"]}])
    examples = TFRecords(tmp_path / "?", features=Features(image="jpeg", label="kind")).read()
    assert (examples.labels.tolist(), examples.classes) == ([1, 0, 1], ("cat", "dog"))


def test_several_labels_are_tags(tmp_path: Path) -> None:
    examples = TFRecords(write(tmp_path / "a", [labeled(0, 2, 0), labeled(1, 1), labeled(2)])).read()
    assert examples.label_kind == "tags"
    assert examples.label_rows().dense(3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_the_classes_of_objects_are_tags_of_their_image(tmp_path: Path) -> None:
    objects: Values = {"image/object/class/label": [1, 1, 2], "image/object/class/text": [b"cat", b"cat", b"dog"]}
    nothing: Values = {"image/object/class/label": []}
    records = [{"image/encoded": [image(0)], **each} for each in (objects, nothing)]
    examples = TFRecords(write(tmp_path / "a", records), label_offset=1).read()
    assert examples.classes == ("cat", "dog")
    assert examples.label_rows().dense(2).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            {"image/encode": [b"x"], "image/class/label": [0]},
            {},
            r"a#0 has no feature 'image/encoded'. Did you mean 'image/encode'\? It has: image/class/label, image/enc",
        ),
        (
            {"image/encoded": [b"x"]},
            {},
            r"a#0 has no feature 'image/class/label'. It has: image/encoded. Give the names",
        ),
        ({"image/encoded": [b"x", b"y"], "image/class/label": [0]}, {}, "holds 2 images; one per record"),
        ({"image/encoded": [b"x"], "image/class/label": [0.5]}, {}, "should hold integers or text, but .*float"),
        (labeled(0, -1), {}, r"a#0: label -1 should be .* from 0 to .* -1 often means that the label is unknown"),
        (labeled(0, 0), {"label_offset": 1}, r"a#0: label 0 should be .* from 1 to"),
        (labeled(0, 2**40), {}, "a#0: label 1099511627776 should be a class index"),
        (
            labeled(0, 2),
            {"classes": ("cat", "dog")},
            "label 2 is not a class: the class indices are 0 to 1. .*label_offset=1",
        ),
        (labeled(0, 0, text=[b"dog"]), {"classes": ("cat", "dog")}, "call label 0 'dog', but .* has 'cat' there"),
    ],
)
def test_an_invalid_record_is_an_error_that_names_the_cure(
    tmp_path: Path, values: Values, options: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        TFRecords(write(tmp_path / "a", [values]), **options).read()


def test_labels_that_are_numbers_in_one_file_and_names_in_another_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", [labeled(0, 0)])
    write(tmp_path / "b", [{"image/encoded": [image(0)], "image/class/label": [b"cat"]}])
    with pytest.raises(DataError, match=r"b gives classes as text, .*a as numbers"):
        TFRecords(tmp_path / "?").read()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data, second: flipped(data, second), r"1 records were read, then the one at byte {second} of"),
        (lambda data, second: flipped(data, second + 40), r"1 records were read, then the one at byte {second} of"),
        (lambda data, second: data[: second + 5], r"1 records were read, then the one at byte {second} of"),
        (lambda data, second: data[: second + 60], r"1 records were read, then the one at byte {second} of"),
        (lambda data, second: flipped(data, 0), r"is not a TFRecord file, or its first record"),
        (lambda data, second: b"", r"holds no record"),
        (lambda data, second: b"\x08\0\0\0", r"is not a TFRecord file"),
    ],
    ids=["length", "data", "cut in the length", "cut in the data", "first", "empty", "too short"],
)
def test_the_error_of_a_damaged_file_gives_the_records_read(
    tmp_path: Path, damage: Callable[[bytes, int], bytes], message: str
) -> None:
    path = Path(write(tmp_path / "a", [labeled(0, 0), labeled(1, 1)]))
    second = 16 + len(example(labeled(0, 0)))
    path.write_bytes(damage(path.read_bytes(), second))
    with pytest.raises(DataError, match=message.format(second=second)):
        TFRecords(path).read()


def test_a_record_that_is_not_a_tf_train_example_is_an_error(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(b"\xff\xff\xff")
    with pytest.raises(DataError, match="a#0 is not a tf.train.Example"):
        TFRecords(tmp_path / "a").read()


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_compressed_file_is_refused_with_the_cure(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a", [labeled(0, 0)], compression)
    with pytest.raises(DataError, match=f"compressed with {compression}, .* Write it again without compression"):
        TFRecords(path).read()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{folder}/none-*", r"There is no file .*none-\*"),
        ("{folder}", r"is a folder; TFRecords needs files, such as .*/\*.tfrecord"),
        ("ram://bucket/none", "There is no file ram://bucket/none"),
        ("nosuch://bucket/none", "nosuch://bucket/none could not be searched for: .*nosuch"),
    ],
)
def test_missing_files_are_an_error(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TFRecords(path.format(folder=tmp_path)).read()


def test_a_source_survives_a_json_round_trip(tmp_path: Path) -> None:
    source = TFRecords(["a", tmp_path], features=Features(label="kind"), classes=("x",), label_offset=1)
    assert TFRecords.from_dict(source.to_dict()) == source
    assert isinstance(source, Choice)


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", [labeled(0, 1, text=[b"cat"]), labeled(1, 0, 2)])
    before = TFRecords(path).read()
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "make_parser", None)  # every read of a record calls it
        after = TFRecords(path).read()
    assert after.fingerprint == before.fingerprint
    write(path, [labeled(5, 0)])
    assert len(TFRecords(path).read()) == 1


def test_other_features_are_indexed_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [{"image/encoded": [b"x"], "a": [0], "b": [1]}])
    labels = [TFRecords(path, features=Features(label=name)).read().labels.tolist() for name in "ab"]
    assert labels == [[0], [1]]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
def test_a_damaged_index_is_rebuilt(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a", [labeled(0, 0)])
    before = read_by_us(TFRecords(path))
    for cached in (tmp_path / "cache" / "index").iterdir():
        cached.write_bytes(content)
    assert read_by_us(TFRecords(path)) == before


def test_an_index_that_cannot_be_cached_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "file"))
    assert len(TFRecords(write(tmp_path / "a", [labeled(0, 0)])).read()) == 1


def test_reading_an_image_whose_file_is_gone_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "folder", [labeled(0, 0)])
    examples = TFRecords(tmp_path / "folder").read()
    shutil.move(tmp_path / "folder", tmp_path / "away")
    with pytest.raises(OSError, match="No such file"):
        examples.images.read(0)
