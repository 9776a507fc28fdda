from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_trainer import DataError
from model_trainer.sources.recordio import RecordIO

MakeRec = Callable[..., Path]
NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "records", "expected"),
    [
        ("auto", [(1, 0.25), (0, 0)], [[1, 0.25], [0, 0]]),
        ("multi_hot", [(0, 0), (-1, 0.5)], [[0, 0], [NAN, 0.5]]),
        ("auto", [(2, 0), (1,)], [[1, 0, 1], [0, 1, 0]]),
        ("auto", [(2, 0), 1], [[1, 0, 1], [0, 1, 0]]),
        ("indices", [(0, 1), (1, 1)], [[1, 1], [0, 1]]),
        ("indices", [(3, -1, -1), (0, 0, 1), (-1, -1, -1)], [[0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_several_labels_become_rows(
    make_rec: MakeRec, labels: str, records: list[tuple[float, ...]], expected: list[list[float]]
) -> None:
    examples = RecordIO(make_rec(*records), labels=labels).read()
    assert examples.label_kind == "tags"
    np.testing.assert_array_equal(examples.label_rows().dense(len(examples.classes)), np.float32(expected))


def test_a_single_label_is_the_class_index(make_rec: MakeRec) -> None:
    examples = RecordIO(make_rec(2.0, 0.0, (1.0,))).read()
    assert examples.labels.tolist() == [2, 0, 1]
    assert examples.labels.dtype == np.int32
    assert examples.classes == ("0", "1", "2")


def test_numbers_that_do_not_fit_the_given_classes_as_multi_hot_rows_are_class_indices(make_rec: MakeRec) -> None:
    examples = RecordIO(make_rec((0, 1), (1, 1)), classes=("cat", "dog", "eel")).read()
    assert examples.label_rows().dense(3).tolist() == [[1, 1, 0], [0, 1, 0]]


def test_one_number_for_one_declared_class_means_whether_it_is_present(make_rec: MakeRec) -> None:
    examples = RecordIO(make_rec((1,), (0,)), classes=("cat",)).read()
    assert examples.label_rows().dense(1).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("records", "line"),
    [
        ([0.0, 1.0], "each record contains one number; read as its class, labels='single'"),
        ([(5, 2), (1,)], "the records carry 1 to 2 numbers; read as class indices, labels='indices'"),
    ],
)
def test_the_inferred_meaning_of_the_labels_is_logged(
    make_rec: MakeRec, records: list[object], line: str, log: pytest.LogCaptureFixture
) -> None:
    RecordIO(make_rec(*records)).read()
    assert line in log.text
    assert "WARNING" not in log.text


@pytest.mark.parametrize("labels", ["multi_hot", "indices"])
def test_one_label_instead_of_several_gives_a_hint_at_pack_label(
    make_rec: MakeRec, labels: str, log: pytest.LogCaptureFixture
) -> None:
    examples = RecordIO(make_rec(1.0, 0.0), labels=labels).read()
    assert "im2rec keeps only the first label of each line: pack the file again" in log.text
    assert "--pack-label" in log.text
    assert examples.label_rows().dense(2).tolist() == [[0, 1], [1, 0]]


def test_a_list_with_more_labels_than_the_records_gives_a_hint_at_pack_label(
    make_rec: MakeRec, log: pytest.LogCaptureFixture
) -> None:
    rec = make_rec(1.0, 0.0)
    rec.with_suffix(".lst").write_text("0\t1\t0\ta.jpg\n1\t0\t1\tb.jpg\n")
    RecordIO(rec).read()
    assert "train.lst has several in a line: im2rec keeps only the first" in log.text


BOXES = (2, 5, 0, 0.1, 0.2, 0.5, 0.7)


@pytest.mark.parametrize(
    ("labels", "classes", "records", "message"),
    [
        ("auto", None, [0.0, 1.5], "train.rec#1: label 1.5 should be a class index, a whole number"),
        ("auto", None, [0.0, NAN], "train.rec#1: label nan"),
        ("auto", None, [float("inf")], "train.rec#0: label inf"),
        ("single", None, [2.0**24], "a whole number from 0 to 16777215"),
        ("auto", ("a", "b"), [1.0, 0.0, 7.0], r"#2: label 7 is not a class: the class indices are 0 to 1. Name"),
        ("single", None, [0.0, (1, 0)], r"#1 carries 2 labels, one was expected. Set labels='multi_hot'"),
        ("multi_hot", None, [(0, 1), (0, 7)], r"#1 has 7 at position 1; a multi-hot row holds 0 and 1"),
        ("multi_hot", None, [(0, 1), (0, NAN)], r"#1 has nan at position 1"),
        ("auto", None, [(0, 2), (0, 2.5)], "#1: label 2.5 should be a class index"),
        ("auto", None, [BOXES, BOXES], "all labels look like MXNet's boxes for detection"),
        ("indices", None, [BOXES, BOXES], r"#0: label 0.1 should be .* look like MXNet's boxes for detection"),
    ],
)
def test_an_invalid_label_is_an_error_that_names_its_record_and_the_cure(
    make_rec: MakeRec, labels: str, classes: tuple[str, ...] | None, records: list[object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        RecordIO(make_rec(*records), labels=labels, classes=classes).read()


def test_the_error_of_a_label_names_the_file(make_rec: MakeRec) -> None:
    rec = make_rec(0.5)
    with pytest.raises(DataError, match=re.escape(f"{rec}#0: ")):
        RecordIO(rec).read()
