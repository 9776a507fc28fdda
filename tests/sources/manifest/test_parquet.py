from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_trainer.errors import DataError
from model_trainer.sources.from_path import source_of_path
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest import Manifest, parquet

Make = Callable[..., Manifest]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a manifest with a column of files, one of labels, and `more` columns."""

    def make(column: str, labels: pa.Array, more: dict[str, pa.Array] | None = None, **options: Any) -> Manifest:
        files = [f"{row}.jpg" for row in range(len(labels))]
        pq.write_table(pa.table({"filename": files, column: labels, **(more or {})}), tmp_path / "a.parquet")
        return Manifest(tmp_path / "a.parquet", **{"root": "", **options})

    return make


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array(["cat", "dog", "cat"]), ("cat", "dog")),
        (pa.array(["cat", "dog", "cat"], pa.large_string()), ("cat", "dog")),
        (pa.array(["cat", "dog", "cat"]).dictionary_encode(), ("cat", "dog")),
        (
            pa.DictionaryArray.from_arrays(pa.array([2, 1, 2], pa.int8()), pa.array(["unused", "dog", "cat"])),
            ("cat", "dog"),
        ),
        (pa.array([0, 1, 0], pa.uint8()), ("0", "1")),
        (pa.array([0.0, 1.0, 0.0]), ("0", "1")),  # as pandas writes whole numbers in a column with missing values
        (pa.array([False, True, False]), ("false", "true")),
    ],
)
def test_single_labels_are_strings_or_numbers_or_categories(make: Make, labels: pa.Array, classes: Any) -> None:
    examples = make("label", labels).read()
    assert examples.names() == ["0.jpg", "1.jpg", "2.jpg"]
    assert examples.classes == classes
    assert isinstance(examples.labels, np.ndarray)
    assert examples.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "dense"),
    [
        (pa.array([["b", "a"], [], ["a"]]), [[1, 1], [0, 0], [1, 0]]),
        (pa.array([["b", "a"], [], ["a"]], pa.large_list(pa.string())), [[1, 1], [0, 0], [1, 0]]),
        (pa.array([[0, 1], [], [1]]), [[1, 1], [0, 0], [0, 1]]),
        (pa.array([[1, 0], [0, 0], [1, None]]), [[1, 0], [0, 0], [1, np.nan]]),
        (pa.array(["a|b", "", "a"]), [[1, 1], [0, 0], [1, 0]]),
    ],
)
def test_tags_are_lists_of_names_or_numbers_or_strings(make: Make, labels: pa.Array, dense: Any) -> None:
    examples = make("tags", labels).read()
    assert isinstance(examples.labels, LabelRows)
    np.testing.assert_array_equal(examples.labels.dense(2), dense)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.list_(pa.float64())])
def test_probabilities_are_lists_of_numbers(make: Make, kind: pa.DataType) -> None:
    examples = make("class_probabilities", pa.array([[0.25, 0.75], [1, 0]], kind), classes=("a", "b")).read()
    assert examples.label_kind == "probabilities"
    np.testing.assert_array_equal(examples.label_rows().dense(2), [[0.25, 0.75], [1, 0]])


@pytest.mark.parametrize(
    "crops",
    [
        pa.array([[1.4, 2.0, 3.0, 4.0], None]),
        pa.array([[1, 2, 3, 4], None]),
        pa.array([[1, 2, 3, 4], None], pa.list_(pa.int32(), 4)),
        pa.array(["[1, 2, 3, 4]", ""]),
    ],
)
def test_null_is_a_missing_value(make: Make, crops: pa.Array) -> None:
    more = {"weight": pa.array([2.5, None]), "crop": crops, "group": pa.array([None, 7]), "split": ["train", None]}
    examples = make("label", pa.array(["a", "b"]), more).read()
    assert examples.weights.tolist() == [2.5, 1]
    assert examples.crops is not None
    assert examples.crops.tolist() == [[2, 1, 4, 3], [0, 0, 0, 0]]
    assert examples.groups is not None
    assert examples.groups.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weight": [1.0, 1.0, -1.0]}, r"a.parquet row 3: 'weight' should be a finite number of at least 0, got -1.0"),
        ({"crop": [[1, 2, 3, 4], [1, 2, 0, 4], None]}, r"row 2: 'crop' should be .* of at least 1 by 1; got"),
        ({"path": ["a", "b", "c"], "weight": [1.0, np.inf, 1.0]}, "row 2: 'weight'"),
    ],
)
def test_an_invalid_value_is_an_error_that_names_the_row(make: Make, more: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make("label", pa.array(["a", "b", "a"]), more).read()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array(["cat", None, "dog"]), "row 2: 'label' is empty; each row needs a label"),
        (pa.array(["cat", "dog", "dgo"]), r"row 3: label 'dgo' is not a class. Did you mean 'dog'\?"),
        (pa.array([{"x": 1}] * 3), "row 1: 'label' should be one label"),
    ],
)
def test_an_invalid_label_is_an_error_that_names_the_row(make: Make, labels: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=f"a.parquet {message}"):
        make("label", labels, classes=("cat", "dog")).read()


def test_rows_without_a_label_can_be_skipped_and_later_rows_keep_their_numbers(make: Make) -> None:
    labels = pa.array(["cat", None, "dog", "dgo"])
    assert make("label", labels, skip_unlabeled=True).read().names() == ["0.jpg", "2.jpg", "3.jpg"]
    with pytest.raises(DataError, match="row 4: label 'dgo' is not a class"):
        make("label", labels, skip_unlabeled=True, classes=("cat", "dog")).read()


def test_columns_that_are_not_needed_are_not_read_even_for_an_error_message(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = []
    batches_of = pq.ParquetFile.iter_batches

    def iter_batches(self: pq.ParquetFile, *args: Any, **options: Any) -> Any:
        columns.append(options.get("columns"))
        return batches_of(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    with pytest.raises(DataError, match="row 2: 'label' is empty"):
        make("label", pa.array(["cat", None]), {"thumbnail": pa.array([b"x", b"y"])}).read()
    assert columns == [["filename", "label"]] * 2


def test_several_batches_give_the_same_as_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make("label", pa.array(["b", "a", "c", "a", "b"]), {"group": pa.array([1, 2, 1, None, 2])})
    expected = manifest.read()
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 2)
    examples = manifest.read()
    assert (examples.names(), examples.classes) == (expected.names(), expected.classes)
    assert examples.labels.tolist() == expected.labels.tolist() == [1, 0, 2, 0, 1]
    assert examples.groups is not None
    assert examples.groups.tolist() == [0, 1, 0, 2, 1]


def test_a_path_on_the_command_line_may_be_parquet(make: Make) -> None:
    manifest = make("label", pa.array(["a"]))
    assert source_of_path(manifest.path) == Manifest(manifest.path)


def test_a_parquet_file_with_another_suffix_is_recognized(make: Make, tmp_path: Path) -> None:
    Path(make("label", pa.array(["é"])).path).rename(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a.csv is a Parquet file. Give it the suffix .parquet, or"):
        Manifest(tmp_path / "a.csv").read()
    assert Manifest(tmp_path / "a.csv", format="parquet").read().classes == ("é",)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"filename,label\na.jpg,x\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_not_parquet_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a.parquet could not be read as Parquet \(.*\). Write it again"):
        Manifest(tmp_path / "a.parquet").read()


def test_a_missing_parquet_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        Manifest(tmp_path / "a.parquet").read()


def test_text_that_is_not_utf8_is_an_error(make: Make) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"1.jpg", b"\xff"]).buffers())
    with pytest.raises(DataError, match="could not be read as Parquet .*utf-8"):
        make("label", pa.array(["a", "a"]), {"photo": bad}, file_column="photo").read()


def test_a_file_that_claims_more_rows_than_it_can_hold_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make("label", pa.array(["a"] * 100_000))
    pq.write_table(pq.read_table(manifest.path).set_column(0, "filename", [["a.jpg"] * 100_000]), manifest.path)
    assert len(manifest.read()) == 100_000
    monkeypatch.setattr(parquet, "PLAUSIBLE_ROWS", 10_000)
    with pytest.raises(
        DataError, match=r"claims 100,000 rows in [\d,]+ bytes, which is not plausible for a table of images"
    ):
        manifest.read()


def test_a_small_file_that_decodes_to_far_more_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    long_label = pa.array(["a" * 10_000] * 5_000)
    for labels in (long_label, long_label.dictionary_encode()):
        manifest = make("label", labels)
        assert len(manifest.read()) == 5_000
        with monkeypatch.context() as patch:
            patch.setattr(parquet, "_PLAUSIBLE_BYTES", 10_000_000)
            with pytest.raises(
                DataError, match=r"decodes to more than [\d,]+ bytes from [\d,]+, which is not plausible"
            ):
                manifest.read()


def test_damaged_files_are_read_or_raise_a_data_error(make: Make) -> None:
    path = Path(make("label", pa.array(["a", "b"] * 20), {"tags2": pa.array([["a"], []] * 20)}).path)
    content = path.read_bytes()
    random_numbers = random.Random(0)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(content[: random_numbers.choice([len(content), random_numbers.randrange(len(content))])])
        for _ in range(random_numbers.randint(1, 4)):
            damaged[random_numbers.randrange(len(damaged))] = random_numbers.randrange(256)
        path.write_bytes(damaged)
        try:
            Manifest(path).read()
        except DataError as error:
            outcomes.add(str(error))
    assert len(outcomes) > 5


def test_parquet_is_read_from_an_open_file_of_the_storage(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make("label", pa.array(["a", "b"]))
    content = Path(manifest.path).read_bytes()
    Path(manifest.path).unlink()
    monkeypatch.setattr("model_trainer.storage.files.open_file", lambda _: io.BytesIO(content))
    assert manifest.read().classes == ("a", "b")
