"""Reads a manifest row by row; a JSON file is parsed as a whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model_trainer.errors import DataError
from model_trainer.sources.manifest.columns import check_distinct
from model_trainer.sources.manifest.json_rows import rows_of_json
from model_trainer.sources.manifest.layout import Layout, open_text

__all__ = ["Row", "Rows", "column_names", "csv_reader", "read_rows"]

Row = dict[str, Any]  # value by column name; text from CSV and TSV

_HOW_TO_QUOTE = (
    "A value that holds the separator, a line break or a quote needs double quotes around it, and each quote in it "
    "is written twice."
)


@dataclass(frozen=True)
class Rows:
    """The rows of a manifest, to be iterated once.

    Attributes:
        unit: what `position` counts, from 1: "line", "record" or "row".
        uniform: True where every row has every column.
        rows: `(position, row)` in the order of the file.
    """

    unit: Literal["line", "record", "row"]
    uniform: bool
    rows: Iterator[tuple[int, Row]]


def read_rows(path: str, layout: Layout, only: Sequence[str] = ()) -> Rows:
    """The rows of the file. This is the reference reader; `batches` gives the same rows faster, or declines.

    Args:
        only: for Parquet, the columns to read; others may be large, such as images. Empty reads all.

    Raises:
        DataError: the file is missing, not UTF-8, or malformed; the message names the line. It may be raised during
            the iteration.
    """
    if layout.kind == "jsonl":
        return Rows("line", False, _json_lines(path))
    if layout.kind == "json":
        return _read_json(path, lines_too=layout.may_be_lines)
    if layout.kind == "parquet":
        from model_trainer.sources.manifest.parquet import parquet_rows  # loads pyarrow

        return Rows("row", True, enumerate(parquet_rows(path, only), 1))
    return Rows("line", True, _csv_rows(path, layout))


def csv_reader(lines: Iterable[str], layout: Layout) -> Any:
    """`csv.reader` over the lines of such a file."""
    return csv.reader(lines, delimiter=layout.delimiter, strict=True, skipinitialspace=layout.skips_spaces)


def _csv_rows(path: str, layout: Layout) -> Iterator[tuple[int, Row]]:
    names: list[str] = []
    line = 1  # where the current row begins; a quoted value may span several
    with open_text(path, newline="") as file:
        reader = csv_reader(file, layout)
        try:
            for values in reader:
                if not any(values):
                    pass  # an empty line, or the bare separators that Excel writes below a table
                elif not names:
                    names = column_names(values, f"{path} line {line}")
                elif len(values) != len(names):
                    raise DataError(
                        f"{path} line {line}: {len(values)} values, but there are {len(names)} columns. {_HOW_TO_QUOTE}"
                    )
                else:
                    # Without surrounding whitespace, as for the column names.
                    yield line, dict(zip(names, map(str.strip, values), strict=False))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path} line {line}: the row is malformed ({error}). {_HOW_TO_QUOTE}") from None


def column_names(values: list[str], where: str) -> list[str]:
    """The column names from the values of the first row.

    Raises:
        DataError: a name occurs twice.
    """
    names = [value.strip() for value in values]
    check_distinct(filter(None, names), where)
    return names


def _json_lines(path: str) -> Iterator[tuple[int, Row]]:
    with open_text(path) as file:
        for number, text in enumerate(file, 1):
            if text.isspace():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path} line {number}: expected JSON, but {_why_not_json(error)}.") from None
            if type(row) is not dict:
                raise DataError(f"{path} line {number}: expected an object {{...}}, got {text.strip()[:40]!r}.")
            yield number, row


def _read_json(path: str, *, lines_too: bool) -> Rows:
    with open_text(path) as file:
        try:
            data = json.load(file)
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            if lines_too and isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
                return Rows("line", False, _json_lines(path))  # JSON Lines in a file named .json
            line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{path}{line}: expected JSON, but {_why_not_json(error)}.") from None
    uniform, rows = rows_of_json(data, path)
    return Rows("record", uniform, enumerate(rows, 1))


def _why_not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        problem = error.msg.removesuffix(" at")  # some of the messages want a position after them
        return f"{problem[0].lower()}{problem[1:]} at column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
