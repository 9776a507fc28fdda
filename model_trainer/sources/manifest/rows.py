"""A manifest file as rows: CSV, TSV and JSON Lines one at a time, JSON as a whole."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from model_trainer.errors import DataError
from model_trainer.sources.manifest.json_rows import rows_of_json
from model_trainer.storage import files

__all__ = ["Format", "Row", "Rows", "read_rows"]

Format = Literal["auto", "csv", "tsv", "json", "jsonl"]
Row = dict[str, Any]  # value by column name; text from CSV and TSV

_BY_SUFFIX: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".manifest": "jsonl",  # SageMaker's name for it
}
_HOW_TO_QUOTE = (
    "A value that holds the separator, a line break or a quote needs double quotes around it, and each quote in it "
    "is written twice."
)


@dataclass(frozen=True)
class Rows:
    """The rows of a manifest, to be gone through once.

    Attributes:
        unit: what `place` counts, from 1: "line" or "record".
        uniform: True where every row has every column.
        rows: `(place, row)` in the order of the file.
    """

    unit: Literal["line", "record"]
    uniform: bool
    rows: Iterator[tuple[int, Row]]


def read_rows(path: str, form: Format) -> Rows:
    """The rows of the file; "auto" tells the form from the name, and JSON from JSON Lines also by the content.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or not of its form; names the line. It may come while the
            rows are gone through.
    """
    first = _first_line(path)
    if not first:
        raise DataError(f"{path} is empty; expected a line of column names and a row for each image.")
    kind = _kind_of(path, first) if form == "auto" else form
    if kind == "jsonl":
        return Rows("line", False, _json_lines(path))
    if kind == "json":
        return _read_json(path, lines_too=form == "auto")
    delimiter = "\t" if kind == "tsv" else max(",;\t", key=first.count)  # of equals the comma
    return Rows("line", True, _delimited(path, delimiter, skip_spaces=f"{delimiter} " in first))


def _kind_of(path: str, first: str) -> Format:
    kind = _BY_SUFFIX.get(Path(path).suffix.lower())
    if kind in {"csv", "tsv"}:
        return kind
    if first.startswith("["):
        return "json"
    if kind is None:
        kind = "json" if first.startswith("{") else "csv"
    return kind


@contextlib.contextmanager
def _opened(path: str, newline: str | None = None) -> Iterator[TextIO]:
    try:
        with files.open_text(path, "utf-8-sig", newline=newline) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; Manifest needs a file. Take ImageFolder for a folder.") from None
    except UnicodeDecodeError:
        raise DataError(_why_not_utf8(path)) from None
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error


def _why_not_utf8(path: str) -> str:
    with files.open_file(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                is_utf16 = number == 1 and line[:2] in {b"\xff\xfe", b"\xfe\xff"}
                found, name = ("looks like UTF-16", "utf-16") if is_utf16 else ("is not UTF-8", "latin1")
                new = f"utf8-{os.path.basename(path)}"
                return (
                    f"{path} line {number}: the text {found} (byte 0x{line[error.start]:02x}). Save it as UTF-8, "
                    f"for example: iconv -f {name} -t utf-8 {os.path.basename(path)} > {new}"
                )
    return f"{path} is not UTF-8 text. Save it as UTF-8."


def _first_line(path: str) -> str:
    """The first line that is not blank, without the spaces around it; at most its first 100,000 characters."""
    with _opened(path) as file:
        while line := file.readline(100_000):
            if line.strip():
                return line.strip()
    return ""


def _delimited(path: str, delimiter: str, *, skip_spaces: bool) -> Iterator[tuple[int, Row]]:
    names: list[str] = []
    line = 1  # where the row at hand begins; a quoted value may go on for several
    with _opened(path, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=skip_spaces)
        try:
            for values in reader:
                if not any(values):
                    pass  # an empty line, or the bare separators that Excel writes below a table
                elif not names:
                    names = _checked_names(values, f"{path} line {line}")
                elif len(values) != len(names):
                    raise DataError(
                        f"{path} line {line}: {len(values)} values, but there are {len(names)} columns. {_HOW_TO_QUOTE}"
                    )
                else:
                    # Without the spaces around them, as the names of columns.
                    yield line, dict(zip(names, map(str.strip, values), strict=False))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path} line {line}: the row is broken ({error}). {_HOW_TO_QUOTE}") from None


def _checked_names(values: list[str], where: str) -> list[str]:
    names = [value.strip() for value in values]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise DataError(f"{where}: the column {name!r} stands twice. Rename or remove one.")
    return names


def _json_lines(path: str) -> Iterator[tuple[int, Row]]:
    with _opened(path) as file:
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
    with _opened(path) as file:
        try:
            data = json.load(file)
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            if lines_too and isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
                return Rows("line", False, _json_lines(path))  # JSON Lines by another name
            place = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{path}{place}: expected JSON, but {_why_not_json(error)}.") from None
    uniform, rows = rows_of_json(data, path)
    return Rows("record", uniform, enumerate(rows, 1))


def _why_not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        problem = error.msg.removesuffix(" at")  # some of the messages want a place after them
        return f"{problem[0].lower()}{problem[1:]} at column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
