"""The fast reader gives what the exact reader gives, or it declines."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.manifest import Manifest, batches, line_blocks, row_collector
from model_trainer.sources.manifest.layout import layout_of
from model_trainer.sources.manifest.row_collector import RowCollector
from model_trainer.sources.manifest.rows import read_rows

Rows = list[dict[str, Any]]
often = settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink])

text = st.text("ab ,;|'\"\t\\é木\u3000", min_size=1, max_size=6)
path = text.map(lambda value: f"{value}.jpg")
record = st.fixed_dictionaries(
    {"filename": path, "label": text, "group": st.just("") | text, "note": st.just("") | text}
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_blocks, "_BLOCK_BYTES", 50)


@pytest.fixture
def save(tmp_path: Path) -> Iterator[Any]:
    def save(name: str, content: str | bytes) -> str:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(tmp_path / name)

    return save


def fast_rows(file: str) -> Rows:
    """The rows, with the columns that are read, from Arrow batches."""
    layout = layout_of(file, "auto")
    collected = RowCollector("", {}, "auto", None, skip_unlabeled=False, uniform=layout.kind != "jsonl")
    return [row for batch in batches.read_batches(file, layout, collected) for row in batch.to_pylist()]


def is_read_fast(file: str, **options: Any) -> bool:
    manifest = Manifest(file, **options)
    layout = layout_of(file, "auto")
    return batches.gather_batches(file, layout, manifest._new_collector(uniform=layout.kind != "jsonl"))


def exactly(manifest: Manifest) -> Examples:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "gather_batches", lambda *_: False)
        return manifest.read()


def as_plain(examples: Examples) -> list[Any]:
    labels = examples.label_rows()
    columns = [examples.weights, labels.starts, labels.classes, labels.values, examples.crops, examples.groups]
    arrays = [None if each is None else (each.dtype, each.tobytes()) for each in columns]
    return [examples.names(), examples.classes, examples.label_kind, examples.fingerprint, *arrays]


@often
@given(
    records=st.lists(record, min_size=1, max_size=8),
    delimiter=st.sampled_from(",\t"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_batches_of_csv_hold_what_pythons_csv_module_reads(
    records: Rows, delimiter: str, line_end: str, quoting: Any
) -> None:
    content = io.StringIO()
    writer = csv.DictWriter(content, list(records[0]), delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writeheader()
    writer.writerows(records)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ("a.csv" if delimiter == "," else "a.tsv")
        file.write_text(content.getvalue(), newline="")
        expected = csv.DictReader(io.StringIO(content.getvalue(), newline=""), delimiter=delimiter)
        assert fast_rows(str(file)) == [
            {name: row[name].strip() for name in ("filename", "label", "group")} for row in expected
        ]


json_record = st.fixed_dictionaries(
    {"filename": path, "tags": st.lists(text, max_size=3)},
    optional={"weight": st.floats(0, 1e6), "group": st.integers(-(2**60), 2**60), "note": st.booleans()},
)


@often
@given(records=st.lists(json_record, min_size=1, max_size=8), ascii_only=st.booleans())
def test_batches_of_json_lines_hold_what_pythons_json_module_reads(records: Rows, ascii_only: bool) -> None:
    lines = [json.dumps(each, ensure_ascii=ascii_only) for each in records]
    names = {"filename", "tags", "weight", "group"} & {name for each in records for name in each}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.jsonl"
        file.write_text("\n".join(lines))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(line_blocks, "_BLOCK_BYTES", 100_000)  # the first block shows which columns there are
            rows = fast_rows(str(file))
    assert rows == [{name: json.loads(line).get(name) for name in names} for line in lines]


SEEDS = {
    "a.csv": (
        'filename,label,weight,crop,group,split\na/1.jpg,cat,0.5,"[1, 2, 3, 4]",p1,train\n'
        'a\\2.jpg,dog,,,"p""2",val\n"a,3.jpg",cat,1,null,,train\n'
    ),
    "tags.csv": "filename,tags,unknown\r\n1.jpg,red|dress,\r\n2.jpg,,shoe\r\n3.jpg,red,\r\n",
    "a.jsonl": (
        '{"filename": "1.jpg", "label": "cat", "weight": 0.5, "crop": [1, 2.5, 3, 4], "group": 1}\n'
        '{"filename": "2.jpg", "label": "dog", "weight": 2, "crop": null, "group": 2}\n'
        '{"filename": "3.jpg", "label": "cat", "weight": 1.0}\n'
    ),
    "tags.jsonl": '{"path": "1.jpg", "tags": [1, 0, 1]}\n{"path": "2.jpg", "tags": [0, 0, 1]}\n',
    "probabilities.jsonl": (
        '{"path": "1.jpg", "class_probabilities": [0.75, 0.25], "label": "a"}\n'
        '{"path": "2.jpg", "class_probabilities": [0, 1], "label": "b"}\n'
    ),
}


def outcome(manifest: Manifest) -> list[Any] | str:
    try:
        return as_plain(manifest.read())
    except DataError as error:
        return str(error)


@settings(often, max_examples=120)
@given(
    name=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(
        st.tuples(st.integers(0, 250), st.integers(0, 2), st.sampled_from('",\n\r \\{}[]:|-01aI\t\0\u00e9')), max_size=3
    ),
    options=st.sampled_from([{}, {"skip_unlabeled": True}, {"labels": "names"}, {"root": "s3://box"}]),
)
def test_files_with_random_errors_give_the_examples_or_the_error_of_the_exact_reader(
    name: str, changes: list[tuple[int, int, str]], options: dict[str, Any]
) -> None:
    content = SEEDS[name]
    for position, replaced, inserted in changes:
        content = content[:position] + inserted + content[position + replaced :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(content, newline="")
        manifest = Manifest(file, **options)
        received = outcome(manifest)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "gather_batches", lambda *_: False)
            assert received == outcome(manifest)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "filename,label\na.jpg,cat\n,\n", {"skip_unlabeled": True}),
        ("a.csv", "filename,label,note\n" + "a.jpg,cat,\n" * 1000 + "a.jpg,cat,\xff\n", {}),
        ("a.csv", "filename,label\na.jpg,x\nb.jpg,dgo\nc.jpg,dgo\n", {"classes": ("x",)}),
        ("a.csv", "filename,label\nc:\\\\1.jpg,x\n\\2.jpg,x\n3\\4/5.jpg,x\n", {"root": "images"}),
        ("a.csv", "filename,tags\n1.jpg,\n2.jpg,[a]\n", {"label_column": "tags", "skip_unlabeled": True}),
        ("a.jsonl", '{"path": "1", "label": 9007199254740993}\n{"path": "2", "label": 0.5}\n', {}),
        ("a.jsonl", '{"path": "1", "label": "x", "weight": -0}\n{"path": "2", "label": "x", "weight": 1.5}\n', {}),
    ],
)
def test_tricky_files_give_the_examples_or_the_error_of_the_exact_reader(
    save: Any, name: str, content: str, options: dict[str, Any]
) -> None:
    manifest = Manifest(save(name, content.encode("latin1")), **options)
    received = outcome(manifest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "gather_batches", lambda *_: False)
        assert received == outcome(manifest)


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_usual_files_are_read_by_the_fast_reader(save: Any, name: str) -> None:
    assert is_read_fast(save(name, SEEDS[name]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'filename,label,note\na.jpg,cat,"one\ntwo"\nb.jpg,dog,\n'),
        ("a.csv", "filename,label\na.jpg,cat\nb.jpg,dog\n,\n"),
        ("a.csv", "filename,label\ra.jpg,cat\rb.jpg,dog\r"),
        ("a.csv", 'filename,label,note\na.jpg,cat,5" wide\nb.jpg,dog,3" high\n'),
        ("a.csv", 'filename, label\na.jpg, "cat"\nb.jpg, dog\n'),
        ("a.jsonl", '{"filename": "a.jpg", "label": "cat"}\n\n {"filename": "b.jpg", "label": "dog"}\n'),
        ("a.jsonl", '{"filename": "a.jpg", "label": "cat", "x": 1}\n{"filename": "b.jpg", "label": "dog", "x": "1"}'),
        ("a.jsonl", '{"filename": "a.jpg", "label": "cat", "label": "cat"}\n{"filename": "b.jpg", "label": "dog"}'),
    ],
)
def test_unusual_files_are_left_to_the_exact_reader(save: Any, name: str, content: str) -> None:
    file = save(name, content)
    assert not is_read_fast(file)
    examples = Manifest(file, root="").read()
    assert examples.names() == ["a.jpg", "b.jpg"]
    assert [examples.classes[label] for label in examples.labels] == ["cat", "dog"]


@pytest.mark.parametrize(
    "line",
    [
        '{"filename": "b.jpg", "label": "x", "width": Inf}',
        '{"filename": "b.jpg", "label": "x"} {"filename": "c.jpg", "label": "x"}',
        '{"filename": "b.jpg",\n"label": "x"}',
        '{"filename": "b.jpg", "label": "x"',
    ],
)
def test_invalid_json_that_arrow_accepts_is_an_error_that_names_the_line(save: Any, line: str) -> None:
    file = save("a.jsonl", f'{{"filename": "a.jpg", "label": "x", "width": 0.5}}\n{line}\n')
    with pytest.raises(DataError, match="a.jsonl line 2: expected JSON"):
        Manifest(file).read()


def test_a_column_is_read_until_one_of_higher_precedence_appears(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_blocks, "_BLOCK_BYTES", 1000)
    lines = ['{"path": "1", "label": "x", "sample_weight": 2}', '{"path": "2", "label": "x", "weight": 3}']
    assert Manifest(save("a.jsonl", "\n".join(lines))).read().weights.tolist() == [2, 3]


def test_columns_are_chosen_once_and_not_for_each_row(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    choose = row_collector.find_columns
    monkeypatch.setattr(
        row_collector, "find_columns", lambda *args, **kwargs: calls.append(1) or choose(*args, **kwargs)
    )
    exactly(Manifest(save("a.csv", "filename,label\n" + "a.png,cat\n" * 100)))
    assert calls == [1]


def test_a_weight_may_be_written_in_any_way_that_python_reads(save: Any) -> None:
    weights = ["1_000", ".5", "1e-3", "", "2"]
    file = save("a.csv", "filename,label,weight\n" + "".join(f"a.jpg,x,{weight}\n" for weight in weights))
    assert is_read_fast(file)
    np.testing.assert_array_equal(Manifest(file).read().weights, np.float32([1000, 0.5, 1e-3, 1, 2]))


def test_messages_of_a_second_pass_count_blank_lines(save: Any) -> None:
    rows = ["a.jpg,cat", "", "", "b.jpg,dog", "c.jpg,dgo"]
    file = save("a.csv", "\n".join(["filename,label", *rows]))
    with pytest.raises(DataError, match=r"a.csv line 6: label 'dgo' is not a class. Did you mean 'dog'\?"):
        Manifest(file, classes=("cat", "dog")).read()
    assert [row for row, _ in read_rows(file, layout_of(file, "auto")).rows] == [2, 5, 6]
