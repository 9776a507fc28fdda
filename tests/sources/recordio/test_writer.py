from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_trainer import DataError, StorageError
from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.recordio import RecordIO, write_recordio

NAN = float("nan")
MAGIC = bytes.fromhex("0a23d7ce")


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Three files with one class each."""
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"image %d" % number)
    paths = [str(tmp_path / f"{number}.jpg") for number in range(3)]
    return Examples.of_files(paths, np.array([1, 0, 2]), ("cat", "dog", "big eel"), origin="data")


def test_single_labels_are_written_as_the_format_defines(examples: Examples, tmp_path: Path) -> None:
    write_recordio(examples, tmp_path / "out.rec")
    expected = b"".join(
        struct.pack("<IIIfQQ", 0xCED7230A, 31, 0, label, number, 0) + b"image %d\0" % number
        for number, label in enumerate((1, 0, 2))
    )
    assert (tmp_path / "out.rec").read_bytes() == expected
    assert (tmp_path / "out.idx").read_text() == "0\t0\n1\t40\n2\t80\n"
    assert (tmp_path / "out.classes.txt").read_text() == "cat\ndog\nbig eel\n"


def test_images_labels_and_class_names_are_read_back_unchanged(
    examples: Examples, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    write_recordio(examples, tmp_path / "out.rec")
    again = RecordIO(tmp_path / "out.rec").read()
    assert again.labels.tolist() == [1, 0, 2]
    assert again.classes == examples.classes
    assert [again.images.read(row) for row in range(3)] == [b"image 0", b"image 1", b"image 2"]
    assert "WARNING" not in log.text


@pytest.mark.parametrize("exclusive", [False, True])
def test_tags_and_probabilities_are_read_back_as_rows(examples: Examples, tmp_path: Path, exclusive: bool) -> None:
    dense = np.float32([[1, NAN, 0], [0, 0.25, 0.75], [1, 1, 0]])
    labels = LabelRows.of_dense(dense, exclusive=exclusive)
    write_recordio(replace(examples, labels=labels), tmp_path / "out.rec")
    again = RecordIO(tmp_path / "out.rec").read()
    np.testing.assert_array_equal(again.label_rows().dense(3), dense)


contents = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=5)), min_size=1).map(b"".join).filter(bool)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), contents), min_size=1, max_size=5))
def test_images_of_any_bytes_are_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    images = [image for _, image in pairs]
    for number, image in enumerate(images):
        (folder / str(number)).write_bytes(image)
    labels = np.array([label for label, _ in pairs])
    paths = [str(folder / str(number)) for number in range(len(images))]
    write_recordio(Examples.of_files(paths, labels, tuple("abcde"), "any"), folder / "out.rec")
    again = RecordIO(folder / "out.rec").read()
    assert [again.images.read(row) for row in range(len(again))] == images
    assert again.labels.tolist() == labels.tolist()


def test_images_that_cannot_be_read_are_skipped_and_reported(
    examples: Examples, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    Path(examples.name(0)).unlink()
    Path(examples.name(2)).write_bytes(b"")
    done: list[int] = []
    skipped = write_recordio(examples, tmp_path / "out.rec", on_progress=done.append)
    assert skipped == {examples.name(0): "is gone", examples.name(2): "is empty"}
    assert "skipped 2 images" in log.text
    assert done == [1, 2, 3]
    again = RecordIO(tmp_path / "out.rec").read()
    assert again.labels.tolist() == [0]
    assert again.images.read(0) == b"image 1"


def test_nothing_is_written_when_no_image_can_be_read(examples: Examples, tmp_path: Path) -> None:
    for number in range(3):
        Path(examples.name(number)).unlink()
    with pytest.raises(DataError, match=r"data: no image could be read, such as .*0.jpg, which is gone"):
        write_recordio(examples, tmp_path / "out.rec")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_when_writing_fails(examples: Examples, tmp_path: Path) -> None:
    write_recordio(examples, tmp_path / "out.rec")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_recordio(examples.take(np.array([2, 1])), tmp_path / "out.rec", on_progress=stop)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_can_be_written_over_its_own_source(examples: Examples, tmp_path: Path) -> None:
    write_recordio(examples, tmp_path / "out.rec")
    backwards = RecordIO(tmp_path / "out.rec").read().take(np.array([2, 1, 0]))
    write_recordio(backwards, tmp_path / "out.rec")
    again = RecordIO(tmp_path / "out.rec").read()
    assert [again.images.read(row) for row in range(3)] == [b"image 2", b"image 1", b"image 0"]
    assert again.labels.tolist() == [2, 0, 1]


def test_weights_and_groups_are_dropped_with_a_warning(
    examples: Examples, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    weighted = replace(examples, weights=np.float32([1, 2, 1]), groups=np.int32([0, 0, 1]))
    write_recordio(weighted, tmp_path / "out.rec")
    assert "a RecordIO file cannot store weights and groups; they are dropped" in log.text


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"crops": np.int32([[0, 0, 0, 0], [1, 1, 5, 5], [0, 0, 0, 0]])}, "out.rec", "stores whole images, but some"),
        ({"classes": ("a\nb", "c", "d")}, "out.rec", r"The class name 'a\\nb' is empty or has several lines"),
        ({}, "out.bin", r"out.bin should end in .rec"),
    ],
)
def test_examples_that_the_format_cannot_store_are_an_error(
    examples: Examples, tmp_path: Path, change: dict[str, object], name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_recordio(replace(examples, **change), tmp_path / name)
    assert not list(tmp_path.glob("out*"))


def test_a_missing_folder_is_named(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/out.* could not be written"):
        write_recordio(examples, tmp_path / "nowhere" / "out.rec")


@pytest.mark.parametrize("text", ["cat\n\ndog\n", "cat\ncat\n", ""])
def test_an_invalid_file_of_class_names_is_an_error(examples: Examples, tmp_path: Path, text: str) -> None:
    write_recordio(examples, tmp_path / "out.rec")
    (tmp_path / "out.classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"out.classes.txt has an empty line, or a class twice"):
        RecordIO(tmp_path / "out.rec").read()


def test_records_are_not_replaced_if_their_class_names_cannot_be_written(examples: Examples, tmp_path: Path) -> None:
    path = tmp_path / "t.rec"
    path.write_bytes(b"older records")
    (tmp_path / "t.classes.txt").mkdir()  # cannot be replaced
    with pytest.raises(StorageError, match=r"t\.classes\.txt could not be written"):
        write_recordio(examples, path)
    assert path.read_bytes() == b"older records"
