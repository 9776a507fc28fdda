from __future__ import annotations

import numpy as np
import pytest

from model_trainer.errors import DataError
from model_trainer.sources.labels.classes import MAX_CLASSES, index_names, index_numbers
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.number_rows import NumberRows

WHERE = LabelLocation("train.rec", "train.rec#{}".format, cure="Cure.", range_cure="Give more.")


def test_names_get_the_index_of_their_class() -> None:
    labels, classes = index_names(["b", "a", "b"], None, str)
    assert (labels.tolist(), labels.dtype, classes) == ([1, 0, 1], np.int32, ("a", "b"))
    assert index_names(["b", "a"], ("b", "c", "a"), str)[0].tolist() == [0, 2]
    assert index_names([], ("a",), str)[0].dtype == np.int32


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_numbers_get_the_index_of_their_class(dtype: type) -> None:
    numbers = np.array([3, 1, 3], dtype)
    labels, classes = index_numbers(numbers, None, WHERE, first=1, names={0: "cat", 2: "dog"})
    assert (labels.tolist(), labels.dtype, classes) == ([2, 0, 2], np.int32, ("cat", "1", "dog"))
    assert index_numbers(numbers, ("a", "b", "c", "d"), WHERE)[1] == ("a", "b", "c", "d")


def test_named_numbers_that_no_image_has_are_classes_too() -> None:
    assert index_numbers(np.array([0]), None, WHERE, names={2: "dog"})[1] == ("0", "1", "dog")


@pytest.mark.parametrize(
    ("numbers", "class_names", "message"),
    [
        ([0, 1.5], None, "train.rec#1: label 1.5 should be a class index, a whole number from 0 to 16777215. Cure."),
        ([0, -1], ("a",), "train.rec#1: label -1 should be a class index"),
        ([np.nan], ("a",), "train.rec#0: label nan should be a class index"),
        ([np.inf], ("a",), "train.rec#0: label inf should be a class index"),
        ([-np.inf], None, "train.rec#0: label -inf should be a class index"),
        ([MAX_CLASSES], None, "train.rec#0: label 16777216 should be a class index"),
        (
            [0, 2, 1],
            ("a",),
            "train.rec#1: label 2 is not a class: the class indices are 0 to 0. Give more.",
        ),
    ],
)
def test_the_first_invalid_number_is_named(
    numbers: list[float], class_names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        index_numbers(np.array(numbers), class_names, WHERE)


def test_a_64_bit_integer_cannot_be_a_class() -> None:
    for number in (2**62, -(2**63)):
        with pytest.raises(DataError, match=f"label {number} "):
            index_numbers(np.array([number], np.int64), None, WHERE, first=1)


def test_a_location_names_the_row_at_a_position() -> None:
    assert WHERE.at([7, 9]).row(1) == "train.rec#9"
    assert LabelLocation("a.csv", "a.csv line {}".format, "tags").labels_of(3) == "a.csv line 3: 'tags'"


def test_rows_of_numbers_keep_nonzero_values() -> None:
    rows = NumberRows.of_flat(np.array([2, 0, 3]), np.array([0, 5, 0, 0, -1], np.float32))
    joined = NumberRows.joined([rows, rows]).take(np.array([2, 3]))
    assert rows.widths.tolist() == [2, 0, 3]
    assert rows.entries.dense(3).tolist() == [[0, 5, 0], [0, 0, 0], [0, 0, -1]]
    assert joined.entries.dense(3).tolist() == [[0, 0, -1], [0, 5, 0]]
    assert [rows.row_of(entry) for entry in (0, 1)] == [0, 2]
