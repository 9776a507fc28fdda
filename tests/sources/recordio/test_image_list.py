from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_trainer import DataError
from model_trainer.sources.recordio import MxnetList, RecordIO

MakeRec = Callable[..., Path]


@pytest.fixture
def make_list(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        (tmp_path / "some.lst").write_text(text, encoding="utf-8")
        return tmp_path / "some.lst"

    return make


def test_a_list_names_files_relative_to_its_folder(make_list: Callable[[str], Path], tmp_path: Path) -> None:
    examples = MxnetList(make_list("5\t1.000000\ta/1.jpg\n\n2\t0\tb/größe 2.jpg\n")).read()
    assert examples.names() == [str(tmp_path / "a/1.jpg"), str(tmp_path / "b/größe 2.jpg")]
    assert examples.labels.tolist() == [1, 0]


def test_a_list_with_several_labels_may_have_another_root(make_list: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    lines = "0\t1\t1\t0\ta.jpg\n1\t0\t-1\t1\tb.jpg\n"
    examples = MxnetList(make_list(lines), root=tmp_path / "images", classes=("x", "y", "z")).read()
    assert examples.names()[1] == str(tmp_path / "images" / "b.jpg")
    assert str(examples.label_rows().dense(3).tolist()) == "[[1.0, 1.0, 0.0], [0.0, nan, 1.0]]"


def test_labels_of_a_list_replace_those_of_the_records(make_rec: MakeRec, make_list: Callable[[str], Path]) -> None:
    rec = make_rec(0.0, 0.0, 0.0)  # ids 0, 1, 2
    examples = RecordIO(rec, list=make_list("2\t2\tc\n1\t1\tb\n7\t0\tgone\n0\t3\ta\n")).read()
    assert examples.labels.tolist() == [3, 1, 2]


def test_a_list_restores_labels_that_im2rec_dropped(make_rec: MakeRec, make_list: Callable[[str], Path]) -> None:
    examples = RecordIO(make_rec(1.0, 0.0), list=make_list("0\t1\t1\t0\ta\n1\t0\t0\t0\tb\n")).read()
    assert examples.label_rows().dense(3).tolist() == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t1\ta\n1\t0\tb\n", "train.rec#2 has the id 2, which is not an index in .*some.lst"),
        ("0\t1\ta\n1\t0\tb\n2\t1\tc\n1\t1\tb\n", "some.lst has the index 1 twice"),
    ],
)
def test_a_list_of_other_records_is_an_error(
    make_rec: MakeRec, make_list: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        RecordIO(make_rec(0.0, 1.0, 0.0), list=make_list(text)).read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t1\ta.jpg\n1 0 b.jpg\n", r"some.lst line 2: expected index, label and path with tabs.*'1 0 b.jpg'"),
        ("0\ta.jpg\n", "line 1: expected index, label and path"),
        (
            "0\t1\ta.jpg\n\n1\tcat\tb.jpg\n",
            r"line 3: index should be an integer and labels numbers, got \['1', 'cat'\]",
        ),
        ("0.5\t1\ta.jpg\n", "line 1: index should be an integer"),
        ("99999999999999999999\t1\ta.jpg\n", "line 1: index should be"),
        ("", "some.lst is empty. A list has a line for each image"),
        ("0\t0.5\ta.jpg\n", r"some.lst \(a.jpg\): label 0.5 should be"),
    ],
)
def test_an_invalid_line_is_named(make_list: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MxnetList(make_list(text)).read()


def test_a_missing_list_or_root_is_named(make_list: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.lst could not be opened: No such file"):
        MxnetList(tmp_path / "no.lst").read()
    with pytest.raises(DataError, match=r"There is no folder .*nowhere. `root` is the base folder"):
        MxnetList(make_list("0\t1\ta\n"), root=tmp_path / "nowhere").read()
