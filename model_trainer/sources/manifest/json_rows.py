"""The rows of a JSON manifest: a list of records, or the forms in which pandas writes a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model_trainer.errors import DataError

__all__ = ["rows_of_json"]


def rows_of_json(data: Any, path: str) -> tuple[bool, Iterator[dict[str, Any]]]:
    """Returns `(uniform, rows)`; uniform is True where every row has every column.

    The forms: `[{"filename": "a.jpg", ...}, ...]`; pandas' own `{"filename": {"0": "a.jpg", ...}, ...}`; columns as
    lists, `{"filename": ["a.jpg", ...], ...}`; and pandas' orient="split".

    Raises:
        DataError: the data has none of these forms, or its columns have different rows.
    """
    if isinstance(data, list):
        return False, _checked_records(data, path)
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a list of records or a table by columns, got {str(data)[:40]!r}.")
    if {"columns", "data"} <= data.keys() <= {"columns", "data", "index"}:
        names, rows = data["columns"], data["data"]
        if not isinstance(names, list) or not isinstance(rows, list):
            raise DataError(f"{path}: 'columns' and 'data' should be lists, as pandas' orient=\"split\" writes them.")
        return True, _rows_of_split(list(map(str, names)), rows, path)
    if data and all(isinstance(column, dict) for column in data.values()):
        _check_same_rows(data, path)
        keys = next(iter(data.values()))
        return True, ({name: column.get(key) for name, column in data.items()} for key in keys)
    if data and all(isinstance(column, list) for column in data.values()):
        lengths = {name: len(column) for name, column in data.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
            raise DataError(f"{path}: the columns have different numbers of rows: {listed}.")
        return True, (dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True))
    return False, iter([data])  # a single record


def _checked_records(records: list[Any], path: str) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records, 1):
        if type(record) is not dict:
            raise DataError(f"{path} record {number}: expected an object {{...}}, got {str(record)[:40]!r}.")
        yield record


def _rows_of_split(names: list[str], rows: list[Any], path: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(names):
            raise DataError(f"{path} record {number}: expected a list of {len(names)} values, got {str(row)[:40]!r}.")
        yield dict(zip(names, row, strict=True))


def _check_same_rows(columns: dict[str, dict[str, Any]], path: str) -> None:
    first_name, first = next(iter(columns.items()))
    for name, column in columns.items():
        key = next((key for key in column if key not in first), None)
        if key is not None:
            raise DataError(f"{path}: the column {name!r} has a row {key!r}, the column {first_name!r} has not.")
