from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.source import Source

Make = Callable[..., Manifest]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a manifest of `content`; it is JSON Lines if it begins with "{"."""

    def make(content: str, **options: Any) -> Manifest:
        path = tmp_path / ("a.jsonl" if content.startswith("{") else "a.csv")
        path.write_text(content)
        return Manifest(path, root="", **options)

    return make


@pytest.mark.parametrize(
    "file", ["filename", "File Name", "file_name", "path", "source-ref", "image", "IMG", "filepath"]
)
@pytest.mark.parametrize("label", ["label", "class_name", "Class", "category"])
def test_columns_are_recognized_by_their_usual_names(make: Make, file: str, label: str) -> None:
    examples = make(f"{label},{file}\ncat,a.jpg\n").read()
    assert (examples.names(), examples.classes) == (["a.jpg"], ("cat",))


def test_other_columns_can_be_named(make: Make) -> None:
    content = "what,where,how_many,whose,filename,label\ncat,a.jpg,2,x,no.jpg,no\ndog,b.jpg,3,x,no.jpg,no\n"
    columns = {"file_column": "where", "label_column": "what", "weight_column": "how_many", "group_column": "whose"}
    examples = make(content, **columns).read()
    assert (examples.names(), examples.classes) == (["a.jpg", "b.jpg"], ("cat", "dog"))
    assert examples.weights.tolist() == [2, 3]
    assert examples.groups is not None
    assert examples.groups.tolist() == [0, 0]


def test_the_log_says_which_of_two_possible_columns_is_read(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="absl")
    assert make("path,filename,label,class_id\nb.jpg,a.jpg,cat,7\n").read().names() == ["a.jpg"]
    assert "the column 'filename' is read, not 'path'; set file_column='path' to read the other" in caplog.text
    assert "labels are read from 'label', not from 'class_id'; set label_column='class_id'" in caplog.text


def test_a_label_column_that_the_user_names_precedes_probabilities(make: Make) -> None:
    content = 'filename,class_probabilities,label\na.jpg,"[1, 0]",cat\n'
    assert make(content, label_column="label").read().label_kind == "single"


def test_a_split_has_its_rows_and_the_classes_of_all_rows(make: Make) -> None:
    content = "filename,label,split,weight\na.jpg,cat,train,1\nb.jpg,dog,val,2\nc.jpg,cat,val,3\n"
    examples = make(content, split="val").read()
    assert examples.names() == ["b.jpg", "c.jpg"]
    assert examples.weights.tolist() == [2, 3]
    assert examples.labels.tolist() == [1, 0]
    assert make(content, split="train").read().classes == ("cat", "dog")


def test_rows_of_all_splits_are_read_with_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    assert len(make("filename,label,split\na.jpg,x,train\nb.jpg,x,test\n").read()) == 2
    assert "rows of all splits are read: train 1, test 1. Set split='train'" in caplog.text


def test_a_group_is_never_in_two_splits(make: Make) -> None:
    rows = [f"{number}.jpg,{'cat' if number % 3 else 'dog'},patient-{number // 4}" for number in range(80)]
    train, val = (split.read() for split in make("\n".join(["filename,label,group", *rows])).split(val=0.3))
    assert len(train) + len(val) == 80
    patients = [{int(name.removesuffix(".jpg")) // 4 for name in split.names()} for split in (train, val)]
    assert not patients[0] & patients[1]
    assert 15 <= len(val) <= 35


def test_each_row_without_a_group_is_a_group_of_its_own(make: Make) -> None:
    lines = [
        '{"filename": "a.jpg", "label": "x"}',
        '{"filename": "b.jpg", "label": "x", "group": 5}',
        '{"filename": "c.jpg", "label": "x", "group": null}',
        '{"filename": "d.jpg", "label": "x", "group": "5"}',
    ]
    groups = make("\n".join(lines)).read().groups
    assert groups is not None
    assert groups.tolist() == [0, 1, 2, 1]


def test_crops_are_rounded_and_may_begin_outside_the_image(make: Make) -> None:
    crops = (
        make('filename,label,crop\na.jpg,x,"[-3.4, 2.6, 10.2, 5]"\nb.jpg,x,null\nc.jpg,x,"(1, 2, 3, 4)"\n').read().crops
    )
    assert crops is not None
    assert crops.tolist() == [[3, -3, 5, 10], [0, 0, 0, 0], [2, 1, 4, 3]]  # top, left, height, width


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "where,label\na.jpg,x\n",
            r"a.csv: no column of files was found. The columns are 'where', 'label'. .*file_column=",
        ),
        (
            "filename,what\na.jpg,x\n",
            r"a.csv: no column of labels was found. .* set label_column='...' or labels_column=",
        ),
        ("{}", "a.jsonl line 1: no column of files was found"),
        ("filename,label\n,x\n", "a.csv line 2: 'filename' is empty"),
        ("filename,label\na.jpg,x\nb.jpg,\n", "a.csv line 3: 'label' is empty; each row needs a label"),
        ('{"filename": 7, "label": "x"}', "a.jsonl line 1: 'filename' should be the path of an image, got 7"),
        ('{"filename": "a\\u0000", "label": "x"}', "'filename' should be the path of an image"),
        ('{"filename": "\\ud800", "label": "x"}', "which cannot be the name of a file"),
        (
            "filename,label,weight\na.jpg,x,-1\n",
            "a.csv line 2: 'weight' should be a finite number of at least 0, got '-1'",
        ),
        ("filename,label,weight\na.jpg,x,nan\n", "'weight' should be a finite number of at least 0, got 'nan'"),
        ("filename,label,weight\na.jpg,x,1e99\n", "'weight' should be a finite number"),
        ("filename,label,weight\na.jpg,x,heavy\n", "'weight' should be a finite number of at least 0, got 'heavy'"),
        (
            'filename,label,crop\na.jpg,x,"[1, 2, 0, 4]"\n',
            r"line 2: 'crop' should be \[x, y, width, height\] in pixels, of at least 1 by 1; got",
        ),
        (
            'filename,label,crop\na.jpg,x,"[1, 2, 4]"\n',
            r"'crop' should be \[x, y, width, height\] in pixels, got '\[1, 2, 4\]'",
        ),
        ('filename,label,crop\na.jpg,x,"[1, 2, 3, nan]"\n', r"'crop' should be \[x, y, width, height\] in pixels"),
        ('{"filename": "a.jpg", "label": "x", "crop": {"x": 1}}', "'crop' should be a list of numbers"),
        (
            '{"filename": "a.jpg", "label": "x"}\n{"filename": "b.jpg", "class_name": "y"}',
            "a.jsonl line 2: labels are in 'class_name', but in 'label' in the rows before",
        ),
        (
            '{"path": "a.jpg", "label": "x"}\n{"filename": "b.jpg", "label": "y"}',
            "a.jsonl line 2: the file is in 'filename', but in 'path'",
        ),
    ],
)
def test_an_invalid_value_is_an_error_that_names_the_row_and_column(make: Make, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(content).read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file_column": "fliename"}, r"no column 'fliename' \(file_column\). Did you mean 'filename'\?"),
        (
            {"weight_column": "mass"},
            r"no column 'mass' \(weight_column\). The columns are 'filename', 'label', 'split'",
        ),
        ({"split": "vla"}, r"no row has the split 'vla'; there are train 1, val 1. Did you mean 'val'\?"),
    ],
)
def test_a_missing_column_or_split_is_an_error(make: Make, options: dict[str, str], message: str) -> None:
    for content in (
        "filename,label,split\na.jpg,x,train\nb.jpg,x,val\n",
        '{"filename": "a.jpg", "label": "x", "split": "train"}\n{"filename": "b.jpg", "label": "x", "split": "val"}',
    ):
        with pytest.raises(DataError, match=message):
            make(content, **options).read()


def test_a_split_needs_a_column(make: Make) -> None:
    with pytest.raises(DataError, match="a.csv has no column that says which rows are 'val'; set split_column"):
        make("filename,label\na.jpg,x\n", split="val").read()


def test_a_manifest_survives_a_json_round_trip() -> None:
    manifest = Manifest("a.csv", split="train", classes=("b", "a"), labels="names")
    assert manifest.to_dict()["split"] == "train"
    assert Manifest.from_dict(manifest.to_dict()) == manifest
    assert Source.kinds()["Manifest"] is Manifest


def test_a_duplicate_class_is_an_error() -> None:
    with pytest.raises(ConfigError, match="`classes` should have each class once, got 'a' twice"):
        Manifest("a.csv", classes=("a", "b", "a"))
