"""The file format of a manifest: CSV, JSON, JSON Lines or Parquet, inferred from its name and first line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TextIO

from model_trainer.errors import DataError, StorageError
from model_trainer.storage import files

__all__ = ["Format", "Layout", "layout_of", "open_bytes", "open_text"]

Format = Literal["auto", "csv", "tsv", "json", "jsonl", "parquet"]

_BY_SUFFIX: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".manifest": "jsonl",  # SageMaker's name for it
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Layout:
    """The file format of a manifest.

    Attributes:
        kind: the format.
        delimiter: for CSV, the character between values.
        skips_spaces: for CSV, whether spaces may follow the delimiter.
        may_be_lines: for JSON, whether it may turn out to be JSON Lines.
    """

    kind: Literal["csv", "json", "jsonl", "parquet"]
    delimiter: str = ","
    skips_spaces: bool = False
    may_be_lines: bool = False


def layout_of(path: str, form: Format) -> Layout:
    """The layout of a file; "auto" infers it from the name, and JSON and JSON Lines also from the first line.

    Raises:
        DataError: the file is missing, empty, or not UTF-8.
    """
    suffix_form = _BY_SUFFIX.get(Path(path).suffix.lower())
    if form == "parquet" or (form == "auto" and suffix_form == "parquet"):
        return Layout("parquet")
    first = _first_line(path)
    if not first:
        raise DataError(f"{path} is empty; expected a line of column names and a row for each image.")
    kind = _infer_format(suffix_form, first) if form == "auto" else form
    if kind == "jsonl":
        return Layout("jsonl")
    if kind == "json":
        return Layout("json", may_be_lines=form == "auto")
    delimiter = "\t" if kind == "tsv" else max(",;\t", key=first.count)  # a tie goes to the comma
    return Layout("csv", delimiter, skips_spaces=f"{delimiter} " in first)


def _infer_format(suffix_form: Format | None, first: str) -> Format:
    if suffix_form in {"csv", "tsv"}:
        return suffix_form
    if first.startswith("["):
        return "json"
    if suffix_form is None:
        return "json" if first.startswith("{") else "csv"
    return suffix_form


def _first_line(path: str) -> str:
    """The first line that is not blank, without surrounding whitespace; at most its first 100,000 characters."""
    with open_text(path) as file:
        while line := file.readline(100_000):
            if line.strip():
                return line.strip()
    return ""


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Opens the file for reading bytes.

    Raises:
        DataError: it is missing, is a folder, or cannot be read, now or within the `with` block.
    """
    with _explained_errors(path), files.open_file(path) as file:
        yield file


@contextlib.contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[TextIO]:
    """Opens the file for reading text in UTF-8, with or without a byte order mark.

    Raises:
        DataError: as in `open_bytes`, or it is not UTF-8; the message then names the line.
    """
    with _explained_errors(path), files.open_text(path, "utf-8-sig", newline=newline) as file:
        yield file


@contextlib.contextmanager
def _explained_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; Manifest needs a file. Use ImageFolder for a folder.") from None
    except UnicodeDecodeError:
        raise DataError(_why_not_utf8(path)) from None
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error


def _why_not_utf8(path: str) -> str:
    with files.open_file(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(b"PAR1"):
                return f"{path} is a Parquet file. Give it the suffix .parquet, or set format='parquet'."
            try:
                line.decode()
            except UnicodeDecodeError as error:
                is_utf16 = number == 1 and line[:2] in {b"\xff\xfe", b"\xfe\xff"}
                problem, encoding = ("looks like UTF-16", "utf-16") if is_utf16 else ("is not UTF-8", "latin1")
                new = f"utf8-{os.path.basename(path)}"
                return (
                    f"{path} line {number}: the text {problem} (byte 0x{line[error.start]:02x}). Save it as UTF-8, "
                    f"for example: iconv -f {encoding} -t utf-8 {os.path.basename(path)} > {new}"
                )
    return f"{path} is not UTF-8 text. Save it as UTF-8."
