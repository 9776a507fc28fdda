from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest import Manifest
from model_trainer.training.log import plain_messages

Make = Callable[..., Manifest]
NAN = float("nan")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a manifest with a column of files and one of labels: strings as CSV, other values as JSON Lines."""

    def make(column: str, values: list[Any], more: dict[str, list[Any]] | None = None, **options: Any) -> Manifest:
        columns = {"filename": [f"{row}.jpg" for row in range(len(values))], column: values, **(more or {})}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path = tmp_path / "a.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        if all(isinstance(value, str) for value in values):
            path = tmp_path / "a.csv"
            lines = [columns, *(row.values() for row in rows)]
            quoted = [",".join('"{}"'.format(str(value).replace('"', '""')) for value in line) for line in lines]
            path.write_text("\n".join(quoted))
        return Manifest(path, **options)

    return make


def dense(manifest: Manifest) -> list[list[float]]:
    examples = manifest.read()
    assert isinstance(examples.labels, LabelRows)
    return examples.labels.dense(len(examples.classes)).tolist()


def single(manifest: Manifest) -> tuple[list[int], tuple[str, ...]]:
    examples = manifest.read()
    assert isinstance(examples.labels, np.ndarray)
    assert examples.labels.dtype == np.int32
    return examples.labels.tolist(), examples.classes


def test_names_are_sorted_and_stripped_of_surrounding_spaces(make: Make) -> None:
    assert single(make("label", ["dog", "cat", "Dog", "dog "])) == ([2, 1, 0, 2], ("Dog", "cat", "dog"))


def test_the_class_list_decides_the_order(make: Make) -> None:
    assert single(make("label", ["dog", "cat"], classes=("dog", "eel", "cat"))) == ([0, 2], ("dog", "eel", "cat"))


@pytest.mark.parametrize("values", [[2, 0], ["2", "0"], [2.0, 0.0]])
def test_whole_numbers_are_class_indices(make: Make, values: list[Any]) -> None:
    assert single(make("label", values)) == ([2, 0], ("0", "1", "2"))
    assert single(make("label", values, classes=("a", "b", "c"))) == ([2, 0], ("a", "b", "c"))


def test_numbers_are_names_if_classes_or_labels_say_so_or_they_are_far_apart(make: Make) -> None:
    assert single(make("label", ["2", "5"], classes=("5", "2"))) == ([1, 0], ("5", "2"))
    assert single(make("label", ["2", "5"], labels="names")) == ([0, 1], ("2", "5"))
    assert single(make("label", ["900001", "17"])) == ([1, 0], ("17", "900001"))
    assert single(make("label", ["007", "1"])) == ([0, 1], ("007", "1"))


def test_tags_are_a_list_or_a_string_with_bars_or_a_list_in_a_string(make: Make) -> None:
    expected = [[0, 1], [0, 0], [1, 1]]
    assert dense(make("labels", [["red"], [], ["red", "dress", "red"]])) == expected
    assert dense(make("tags", ["red", "", "red | dress"])) == expected
    assert dense(make("labels", ['["red"]', "[]", "['red', 'dress']"])) == expected


def test_lists_in_a_column_of_one_label_are_tags(make: Make) -> None:
    assert dense(make("class", [["b"], ["a", "b"]])) == [[0, 1], [1, 1]]


def test_tags_may_be_unknown(make: Make) -> None:
    more = {"unknown": [["shoe"], None, ["red"]]}
    manifest = make("labels", [["red", "dress"], ["shoe"], []], more)
    assert manifest.read().classes == ("dress", "red", "shoe")
    np.testing.assert_array_equal(dense(manifest), [[1, 1, NAN], [0, 0, 1], [0, NAN, 0]])


@pytest.mark.parametrize(
    "values", [[[1, 0, 1], [0, 0, -1]], [[1.0, 0.0, 1.0], [0.0, 0.0, None]], ["[1, 0, 1]", "[0, 0, -1]"]]
)
def test_lists_of_zeros_and_ones_of_one_length_are_multi_hot_rows(
    make: Make, values: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="absl")
    np.testing.assert_array_equal(dense(make("labels", values)), [[1, 0, 1], [0, 0, NAN]])
    assert "read as multi-hot rows, labels='multi_hot'. Set labels='indices' if they are class indices." in caplog.text
    assert make("labels", values, classes=("a", "b", "c")).read().classes == ("a", "b", "c")


def test_another_column_may_name_the_unknown_classes_of_multi_hot_rows(make: Make) -> None:
    manifest = make("labels", [[1, 0, 0], [0, 1, 1]], {"unknown": ["c", ""]}, classes=("a", "b", "c"))
    np.testing.assert_array_equal(dense(manifest), [[1, 0, NAN], [0, 1, 1]])


def test_other_lists_of_numbers_are_class_indices(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="absl")
    assert dense(make("labels", [[0, 2], [1]])) == [[1, 0, 1], [0, 1, 0]]
    assert "'labels' holds class indices, labels='indices'" in caplog.text
    assert dense(make("labels", ["0|2", "1"], classes=("a", "b", "c", "d"))) == [[1, 0, 1, 0], [0, 1, 0, 0]]


def test_rows_of_zeros_and_ones_are_class_indices_if_labels_says_so(make: Make) -> None:
    values = [[0, 1], [1, 0]]
    assert dense(make("labels", values)) == [[0, 1], [1, 0]]
    assert dense(make("labels", values, labels="indices")) == [[1, 1], [1, 1]]
    assert dense(make("class-id", values)) == [[1, 1], [1, 1]]
    assert dense(make("labels", values, classes=("a", "b", "c"))) == [[1, 1, 0], [1, 1, 0]]


def test_probabilities_need_no_names_with_a_class_list(make: Make) -> None:
    manifest = make("class_probabilities", ["[0.25, 0.75]", "[1, 0]"], classes=("dog", "cat"))
    assert manifest.read().label_kind == "probabilities"
    assert dense(manifest) == [[0.25, 0.75], [1, 0]]


def test_probabilities_in_another_order_than_the_names_are_an_error(make: Make) -> None:
    values, names = [[0.1, 0.9], [0.8, 0.2], [1, 0]], {"class_name": ["cat", "dog", "dog"]}
    with pytest.raises(DataError, match=r"in 3 of 3 rows another class .* line 1: 'dog' instead of 'cat'. .* classes="):
        make("class_probabilities", values, names).read()
    assert make("class_probabilities", values, names, classes=("dog", "cat")).read().classes == ("dog", "cat")


def test_two_swapped_classes_among_many_rows_are_an_error(make: Make) -> None:
    names = ["a", "b", "c", "d", "e"] * 10
    written = ["a", "b", "c", "e", "d"]  # the order in which some program wrote the numbers
    values = [[float(name == each) for each in written] for name in names]
    with pytest.raises(DataError, match="in 10 of 10 rows of 'd' another class .* line 4: 'e' instead of 'd'"):
        make("class_probabilities", values, {"class_name": names}).read()


def test_a_class_list_in_the_wrong_order_is_warned_about(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make("class_probabilities", [[1, 0], [0, 1]], {"class_name": ["a", "b"]}, classes=("b", "a")).read()
    assert "Check the order of the class list." in caplog.text


@pytest.mark.parametrize(
    ("column", "values", "options", "message"),
    [
        (
            "label",
            ["dog", "dgo"],
            {"classes": ("cat", "dog")},
            r"a.csv line 3: label 'dgo' is not a class. Did you mean 'dog'\?",
        ),
        (
            "labels",
            [["dog"], ["cat", "dgo"]],
            {"classes": ("cat", "dog")},
            r"a.jsonl line 2: label 'dgo' is not a class.",
        ),
        (
            "label",
            [0, -1],
            {},
            "line 2: label -1 should be a class index, .* from 0 to 16777215. Set labels='names'",
        ),
        ("label", ["0", "x"], {"labels": "indices"}, "a.csv line 3: label 'x' should be a class index"),
        (
            "label",
            ["x", ["y"]],
            {},
            "line 2: 'label' should be one label as in the first row, got .* Set labels_column='label'",
        ),
        ("labels", [["x"], [""]], {}, "line 2: a label is empty"),
        ("labels", [["x"], [["y"]]], {}, "line 2: expected one label, got"),
        ("labels", [["x"], None], {}, "line 2: 'labels' is missing; write an empty list"),
        ("labels", [["x"], {"y": 1}], {}, "line 2: 'labels' should be a list of labels or text such as 'red|dress'"),
        ("labels", ["x", "[y"], {"classes": ("x",)}, r"line 3: label '\[y' is not a class"),
        (
            "labels",
            ["x", "[y]"],
            {},
            r"line 3: 'labels' should be a list of labels or text such as 'red|dress', got '\[y\]'",
        ),
        ("labels", [["x"], ["y", None]], {}, "line 2: a label is null, which only multi-hot rows can have"),
        ("labels", [[1, 0, 1], [0, 1]], {}, "line 1: 'labels' has a class index twice. If these are multi-hot rows"),
        (
            "labels",
            [[1, 0], [0, 2]],
            {"labels": "multi_hot"},
            "line 2: 'labels' has '2'; a multi-hot row holds 0 and 1",
        ),
        (
            "class_probabilities",
            [[0.5, 0.5], [0.5, 0.4]],
            {"classes": ("a", "b")},
            "line 2: .* at least 0 with the sum 1, got .* with the sum 0.9",
        ),
        (
            "class_probabilities",
            [[1.5, -0.5]],
            {"classes": ("a", "b")},
            "line 1: 'class_probabilities' should be numbers of at least 0",
        ),
        (
            "class_probabilities",
            [[NAN, 1]],
            {"classes": ("a", "b")},
            "line 1: 'class_probabilities' should be numbers of at least 0",
        ),
        (
            "class_probabilities",
            [[1, 0], [1]],
            {},
            "line 2: 'class_probabilities' has 1 numbers, but the first row has 2",
        ),
        (
            "class_probabilities",
            [[1, 0]],
            {"classes": ("a",)},
            "line 1: 'class_probabilities' has 2 numbers, but there are 1 classes",
        ),
        (
            "class_probabilities",
            [[1, 0]],
            {},
            "has 2 numbers in each row, but no column names the class. Give the classes",
        ),
        ("class_probabilities", [None], {}, "line 1: 'class_probabilities' is empty"),
        (
            "class_probabilities",
            ["a lot"],
            {},
            "line 2: 'class_probabilities' should be a list of numbers, got 'a lot'",
        ),
    ],
)
def test_an_invalid_label_is_an_error_that_names_the_row(
    make: Make, column: str, values: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make(column, values, **options).read()


def test_a_label_cannot_be_present_and_unknown(make: Make) -> None:
    with pytest.raises(DataError, match="line 2: a label of 'labels' is unknown as well; it cannot be both"):
        make("labels", [["a", "b"], ["a", "b"]], {"unknown": [[], ["b"]]}).read()


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("label", ["cat", "", "dog"], "cat dog"),
        ("label", [None, "cat", "dog", float("nan")], "cat dog"),
        ("class_id", ["", "0", "1"], "0 1"),
        ("class_probabilities", [None, [1, 0], [0.5, 0.5]], "0 0,1"),
        ("tags", [None, ["cat"], []], "0 "),
    ],
)
def test_rows_without_a_label_can_be_skipped(
    make: Make, column: str, values: list[Any], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    classes = {"class_probabilities": ("cat", "dog")}.get(column)
    with pytest.raises(DataError, match=r"skip_unlabeled=True"):
        make(column, values, classes=classes).read()
    with plain_messages():
        examples = make(column, values, classes=classes, skip_unlabeled=True).read()
    missing = [row for row, value in enumerate(values) if value in (None, "") or value != value]
    assert [Path(name).name for name in examples.names()] == [
        f"{row}.jpg" for row in range(len(values)) if row not in missing
    ]
    labels = examples.labels
    if isinstance(labels, np.ndarray):
        assert " ".join(examples.classes[label] for label in labels) == expected
    else:
        rows = [labels.classes[start:stop] for start, stop in itertools.pairwise(labels.starts)]
        assert " ".join(",".join(map(str, row)) for row in rows) == expected
    line = missing[0] + (2 if isinstance(values[0], str) else 1)
    counted_rows = "1 row without a label" if len(missing) == 1 else f"{len(missing)} rows without a label"
    assert f"Skipped {counted_rows}: " in (messages := capfd.readouterr().err)
    assert f", the first in line {line}.\n" in messages


def test_messages_after_skipped_rows_name_the_right_line(make: Make) -> None:
    values = [None, [1, 0, 0], [0, 1, 0], [1, 0]]
    with pytest.raises(DataError, match=r"a.jsonl line 4: 'labels' has 2 numbers"):
        make("labels", values, labels="multi_hot", skip_unlabeled=True).read()


def test_a_manifest_without_any_label_is_an_error(make: Make) -> None:
    with pytest.raises(DataError, match=r"a.csv has no row with a label"):
        make("label", ["", ""], skip_unlabeled=True).read()


def test_first_rows_without_the_key_can_be_skipped(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text('{"file": "0.jpg"}\n{"file": "1.jpg", "label": "cat"}\n{"file": "2.jpg"}\n')
    examples = Manifest(path, skip_unlabeled=True).read()
    assert [Path(name).name for name in examples.names()] == ["1.jpg"]
    path.write_text('{"file": "0.jpg"}\n{"file": "1.jpg"}\n')
    with pytest.raises(DataError, match="no column of labels was found"):
        Manifest(path, skip_unlabeled=True).read()


def test_an_empty_string_among_lists_of_class_indices_means_no_label(make: Make) -> None:
    assert dense(make("class_ids", ["[0, 1]", "", "[1]"], skip_unlabeled=True)) == [[1, 1], [0, 0], [0, 1]]
