from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.manifest import Manifest

# As keras-trainer documents it.
KERAS_TRAINER = """[
  {"filename": "cat/cat-1.jpg", "class_probabilities": [0.9, 0.1], "class_name": "cat", "crop": [100, 100, 50, 75]},
  {"filename": "cat/cat-2.jpg", "class_probabilities": [1.0, 0.0], "class_name": "cat", "crop": null},
  {"filename": "dog/dog-2.jpg", "class_probabilities": [0.2, 0.8], "class_name": "dog"}
]"""


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_table(records: list[dict[str, Any]], delimiter: str) -> str:
    """The records as CSV, with lists as JSON and null as an empty value."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    for record in records:
        writer.writerow({key: json.dumps(value) if isinstance(value, list) else value for key, value in record.items()})
    return file.getvalue()


def as_parquet(records: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), file)
    return file.getvalue()


def in_all_forms(records: list[dict[str, Any]]) -> dict[str, str | bytes]:
    names = list(records[0])
    columns = {name: {str(row): record[name] for row, record in enumerate(records)} for name in names}
    return {
        "rows.csv": as_table(records, ","),
        "semicolons.csv": as_table(records, ";"),
        "rows.parquet": as_parquet(records),
        "rows.tsv": as_table(records, "\t"),
        "rows.json": json.dumps(records, indent=1),
        "rows.jsonl": "".join(f"{json.dumps(record)}\n" for record in records),
        "lines.json": "\n\n".join(json.dumps(record) for record in records),
        "list.jsonl": json.dumps(records),
        "columns.json": json.dumps(columns),
        "lists.json": json.dumps({name: [record[name] for record in records] for name in names}),
        "split.json": json.dumps({"columns": names, "data": [[record[name] for name in names] for record in records]}),
    }


def as_plain(examples: Examples) -> list[Any]:
    labels = examples.label_rows()
    columns = [examples.weights, labels.starts, labels.classes, labels.values, examples.crops, examples.groups]
    return [examples.names(), examples.classes, *(None if each is None else each.tolist() for each in columns)]


text = st.text("ab ,;|'\"\t[]é木", min_size=1, max_size=6).filter(lambda value: value == value.strip())
name = text.filter(lambda value: not value.startswith("["))
record = st.fixed_dictionaries(
    {
        "filename": text.map(lambda value: f"{value}.jpg"),
        "class_name": name,
        "weight": st.none() | st.floats(0, 1e6, width=32),
        "crop": st.none() | st.tuples(*[st.integers(-9, 9)] * 2, *[st.integers(1, 99)] * 2).map(list),
        "group": st.none() | name,
    }
)


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink])
@given(records=st.lists(record, min_size=1, max_size=5))
def test_the_same_table_gives_the_same_examples_in_every_format(records: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read = {}
        for form, content in in_all_forms(records).items():
            read[form] = as_plain(Manifest(save(Path(folder) / form, content)).read())
    assert read["rows.json"][0] == [f"{folder}/{each['filename']}" for each in records]
    assert read["rows.json"][1] == tuple(sorted({each["class_name"] for each in records}))
    for form, plain in read.items():
        assert plain == read["rows.json"], form


def test_train_data_of_keras_trainer_loads_unchanged(tmp_path: Path) -> None:
    examples = Manifest(save(tmp_path / "train_data.json", KERAS_TRAINER), root="data/train").read()
    assert examples.names() == ["data/train/cat/cat-1.jpg", "data/train/cat/cat-2.jpg", "data/train/dog/dog-2.jpg"]
    assert examples.classes == ("cat", "dog")
    assert examples.label_kind == "probabilities"
    np.testing.assert_allclose(examples.label_rows().dense(2), [[0.9, 0.1], [1, 0], [0.2, 0.8]], rtol=1e-6)
    assert examples.crops is not None
    assert examples.crops.tolist() == [[100, 100, 75, 50], [0, 0, 0, 0], [0, 0, 0, 0]]  # top, left, height, width


def test_paths_are_relative_to_the_manifests_folder_unless_they_are_absolute_or_urls(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "path,label\nx/1.jpg,a\n/data/2.jpg,a\ns3://bucket/3.jpg,a\n")
    assert Manifest(path).read().names() == [f"{tmp_path}/x/1.jpg", "/data/2.jpg", "s3://bucket/3.jpg"]
    assert Manifest(path, root="s3://other/").read().name(0) == "s3://other/x/1.jpg"


@pytest.mark.parametrize(
    "content",
    [
        "\ufefffilename,label\r\na.jpg,cat\r\n\r\nb.jpg,dog\r\n,\r\n",  # as Excel saves it
        "filename, label\na.jpg, cat\nb.jpg, dog",
        'filename,label,note\na.jpg,cat,"one\ntwo, ""three"""\nb.jpg,dog,\n',
        "filename\tlabel\na.jpg\tcat\nb.jpg\tdog\n",
        ",filename,label\n0,a.jpg,cat\n1,b.jpg,dog\n",  # pandas writes its index into a column without name
    ],
)
def test_csv_is_read_as_common_programs_write_it(tmp_path: Path, content: str) -> None:
    examples = Manifest(save(tmp_path / "a.csv", content)).read()
    assert [Path(each).name for each in examples.names()] == ["a.jpg", "b.jpg"]
    assert [examples.classes[label] for label in examples.labels] == ["cat", "dog"]


@pytest.mark.skipif("__import__('os').sep != '/'")
def test_a_windows_path_is_read_with_slashes(tmp_path: Path) -> None:
    examples = Manifest(save(tmp_path / "a.csv", "filename,label\ncat\\1.jpg,cat\n"), root="images").read()
    assert examples.names() == ["images/cat/1.jpg"]


def test_nan_in_json_is_a_missing_value(tmp_path: Path) -> None:
    content = '[{"filename": "a.jpg", "label": "x", "crop": NaN, "group": NaN}]'
    assert Manifest(save(tmp_path / "a.json", content)).read().crops is None


def test_a_column_may_first_appear_in_a_later_line_of_json_lines(tmp_path: Path) -> None:
    lines = [
        '{"filename": "a.jpg", "label": "x"}',
        '{"filename": "b.jpg", "label": "x", "weight": 3, "crop": [1, 2, 3, 4]}',
    ]
    examples = Manifest(save(tmp_path / "a.jsonl", "\n".join(lines))).read()
    assert examples.weights.tolist() == [1, 3]
    assert examples.crops is not None
    assert examples.crops.tolist() == [[0, 0, 0, 0], [2, 1, 4, 3]]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", "", "a.csv is empty; expected a line of column names"),
        ("a.json", " \n", "a.json is empty"),
        ("a.csv", "filename,label\n", "a.csv has column names but no row"),
        ("a.json", "[]", "a.json has column names but no row"),
        ("a.csv", "filename,label\na.jpg,x\n\nb.jpg,x,y\n", "a.csv line 4: 3 values, but there are 2 columns. A value"),
        ("a.csv", 'filename,label\na.jpg,x\nb.jpg,"x\nc.jpg,x', r"a.csv line 3: the row is malformed \(unexpected end"),
        ("a.csv", "filename,label,label\na.jpg,x,y\n", "a.csv line 1: the column 'label' occurs twice"),
        (
            "a.csv",
            "a.jpg,cat\nb.jpg,dog\n",
            "a.csv: the first line should hold the column names, got 'a.jpg', 'cat'. Put",
        ),
        (
            "a.csv",
            "filename,label\na.jpg,dög\n".encode("latin1"),
            "a.csv line 2: the text is not UTF-8 .byte 0xf6.. .* iconv -f latin1",
        ),
        (
            "a.csv",
            "filename,label\na.jpg,x\n".encode("utf-16"),
            "a.csv line 1: the text looks like UTF-16 .* iconv -f utf-16",
        ),
        ("a.json", '[{"filename": "a.jpg"},\n]', "a.json line 2: expected JSON, but expecting value at column 1"),
        ("a.json", "[" * 100_000, "a.json: expected JSON, but it is nested too deeply"),
        (
            "a.jsonl",
            '{"a": ' * 50_000 + "1" + "}" * 50_000,
            "a.jsonl line 1: expected JSON, but it is nested too deeply",
        ),
        ("a.json", '"a.jpg"', "a.json: expected a list of records or a table by columns, got 'a.jpg'"),
        ("a.json", '[["a.jpg", "x"]]', "a.json record 1: expected an object {...}, got"),
        (
            "a.json",
            '{"filename": {"0": "a"}, "label": {"0": "x", "7": "y"}}',
            "column 'label' has a row '7', the column 'filename'",
        ),
        ("a.json", '{"filename": ["a", "b"], "label": ["x"]}', "different numbers of rows: 'filename' 2, 'label' 1"),
        ("a.json", '{"columns": "filename", "data": []}', "a.json: 'columns' and 'data' should be lists"),
        (
            "a.json",
            '{"columns": [0, 1], "data": [["a.jpg", "x"]]}',
            "no column of files was found. The columns are '0', '1'",
        ),
        ("a.json", '{"columns": ["filename", "label"], "data": [["a.jpg"]]}', "record 1: expected a list of 2 values"),
        (
            "a.jsonl",
            '{"filename": "a.jpg", "label": "x"}\n{"filename',
            "a.jsonl line 2: expected JSON, but .* at column",
        ),
        (
            "a.jsonl",
            '{"filename": "a.jpg", "label": "x"}\n[1]',
            r"a.jsonl line 2: expected an object {...}, got '\[1\]'",
        ),
    ],
)
def test_a_malformed_file_is_an_error_that_names_the_line(
    tmp_path: Path, file: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Manifest(save(tmp_path / file, content)).read()


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*none.csv\."):
        Manifest(tmp_path / "none.csv").read()
    with pytest.raises(DataError, match="is a folder; Manifest needs a file. Use ImageFolder"):
        Manifest(tmp_path).read()


def test_a_file_of_another_source_names_that_source() -> None:
    with pytest.raises(DataError, match=r"train.rec is not a table. Use RecordIO\('train.rec'\)"):
        Manifest("train.rec").read()


def test_values_and_column_names_are_stripped_of_surrounding_spaces(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "path ,label\n1.jpg , cat\n2.jpg,cat \n")
    examples = Manifest(path).read()
    assert examples.names() == [f"{tmp_path}/1.jpg", f"{tmp_path}/2.jpg"]
    assert examples.classes == ("cat",)


def test_images_in_an_unsupported_object_store_are_an_error(tmp_path: Path) -> None:
    examples = Manifest(save(tmp_path / "a.csv", "path,label\n/1.jpg,a\nftp://bucket/2.jpg,b\n")).read()
    with pytest.raises(DataError, match=r"ftp://bucket/2.jpg is in an object store that is not supported yet"):
        examples.check_local()
    Manifest(save(tmp_path / "b.csv", "path,label\ngs://bucket/2.jpg,b\n")).read().check_local()


@pytest.mark.parametrize("name", ["a.csv", "a.json"])  # by Arrow, and row by row
def test_relative_paths_in_an_object_store_are_resolved_as_on_disk(tmp_path: Path, name: str) -> None:
    records = [
        {"path": path, "label": "a"} for path in ("./x/1.jpg", "../2.jpg", "x/./..//3.jpg", "..a/.b./4.jpg", "5")
    ]
    manifest = save(tmp_path / name, in_all_forms(records)["rows" + name[1:]])
    assert Manifest(manifest, root="s3://box/train").read().names() == [
        f"s3://box/{key}" for key in ("train/x/1.jpg", "2.jpg", "train/3.jpg", "train/..a/.b./4.jpg", "train/5")
    ]
    assert Manifest(manifest, root="/data").read().name(0) == "/data/./x/1.jpg"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("../../x.jpg", r"'../../x.jpg' leads out of the bucket of s3://box/train/"),
        ("s3://box", r"s3://box is a bucket, not an image"),
        ("s3://My_Box/x.jpg", r"s3://My_Box/x.jpg names the bucket 'My_Box', which cannot exist"),
        ("s3://box/../x.jpg", r's3://box/../x.jpg contains "." or ".."'),
        ("s3:/box/x.jpg", r"s3:/box/x.jpg looks like a URL. Did you mean s3://box/x.jpg?"),
        ("S3://box/x.jpg", r"Did you mean s3://box/x.jpg?"),
        ("s3:///x.jpg", r"s3:///x.jpg is in the configured bucket, and none is configured"),
    ],
)
def test_a_mistyped_url_is_named_with_its_line(tmp_path: Path, path: str, problem: str) -> None:
    manifest = save(tmp_path / "a.csv", f"path,label\n1.jpg,a\ns3://box/2.jpg,a\n{path},b\n")
    with pytest.raises(DataError, match=rf"a.csv line 4: .*{re.escape(problem)}"):
        Manifest(manifest, root="s3://box/train").read()


def test_a_row_may_be_in_the_configured_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_S3_BUCKET", "box")
    manifest = save(tmp_path / "a.csv", "path,label\ns3:///1.jpg,a\n2.jpg,a\n")
    assert Manifest(manifest).read().names() == ["s3://box/1.jpg", f"{tmp_path}/2.jpg"]
