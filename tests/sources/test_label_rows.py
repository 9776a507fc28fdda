from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_trainer.sources.label_rows import LabelRows

TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0.0, 0.25, 1.0, float("nan")]), min_size=width, max_size=width), min_size=1
    ).map(lambda rows: np.array(rows, np.float32))
)


@given(TABLES)
def test_rows_convert_back_to_their_dense_table(table: np.ndarray) -> None:
    np.testing.assert_array_equal(LabelRows.of_dense(table).dense(table.shape[1]), table)


@given(TABLES, st.data())
def test_take_selects_rows_of_the_table(table: np.ndarray, data: st.DataObject) -> None:
    indices = np.array(data.draw(st.lists(st.integers(0, len(table) - 1))), np.int64)
    taken = LabelRows.of_dense(table).take(indices)
    np.testing.assert_array_equal(taken.dense(table.shape[1]), table[indices])


@given(TABLES, st.data())
def test_remapped_labels_are_in_the_new_columns(table: np.ndarray, data: st.DataObject) -> None:
    width = table.shape[1]
    order = data.draw(st.permutations(range(width)))[: data.draw(st.integers(1, width))]
    position = np.array([order.index(old) if old in order else -1 for old in range(width)])
    np.testing.assert_array_equal(LabelRows.of_dense(table).moved(position).dense(len(order)), table[:, order])


@given(TABLES)
def test_the_most_likely_class_is_the_first_with_the_largest_value(table: np.ndarray) -> None:
    most_likely = LabelRows.of_dense(table).most_likely()
    values = np.nan_to_num(table, nan=-1.0)
    expected = [int(row.argmax()) if (row > 0).any() else None for row in values]
    for actual, expected_class in zip(most_likely, expected, strict=True):
        assert expected_class is None or actual == expected_class


def test_rows_are_made_of_lists_of_classes_and_of_values() -> None:
    rows = LabelRows.of([[2, 0], [], [1]], [[1.0, np.nan], [], [0.5]])
    expected = np.array([[np.nan, 0, 1], [0, 0, 0], [0, 0.5, 0]], np.float32)
    np.testing.assert_array_equal(rows.dense(3), expected)


def test_tags_are_counted_where_they_are_known_and_present() -> None:
    rows = LabelRows.of_dense(np.array([[1, np.nan, 0], [1, 0.4, 0.5]], np.float32))
    assert rows.counts(3).tolist() == [2, 0, 1]


def test_with_probabilities_the_most_likely_class_is_counted() -> None:
    rows = LabelRows.of_dense(np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7]], np.float32), exclusive=True)
    assert rows.counts(3).tolist() == [1, 0, 1]
