"""Reads CSV as Arrow record batches."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from model_trainer.sources.manifest.arrow_values import NeedsRowReader, content_of
from model_trainer.sources.manifest.layout import Layout
from model_trainer.sources.manifest.line_blocks import line_blocks
from model_trainer.sources.manifest.row_collector import RowCollector
from model_trainer.sources.manifest.rows import column_names, csv_reader

__all__ = ["csv_batches"]

# What str.strip() removes: each character for which str.isspace() is True.
_SPACES = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_NEWLINE, _CARRIAGE_RETURN, _QUOTE = b'\n\r"'


def csv_batches(file: BinaryIO, layout: Layout, collector: RowCollector) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a CSV file in batches, see `batches`.

    Raises:
        NeedsRowReader, DataError, ValueError, ArrowException: the file needs the exact reader.
    """
    names: list[str] = []
    for block in line_blocks(file):
        _check_quotes(block, layout)
        if not names:
            names, block = _without_names(block, layout)
            collector.update_columns(names)
        if block.strip(b"\r\n"):
            yield _batch_of(block, layout, names, collector)


def _without_names(block: bytes, layout: Layout) -> tuple[list[str], bytes]:
    """Splits the first block into the column names and the lines below them."""
    reader = csv_reader(io.StringIO(block.decode(), newline=""), layout)
    for values in reader:
        if any(values):
            lines = block.split(b"\n", reader.line_num)
            return column_names(values, ""), lines[-1] if len(lines) > reader.line_num else b""
    raise NeedsRowReader("no column names in the first block")


def _check_quotes(block: bytes, layout: Layout) -> None:
    """Raises NeedsRowReader unless both readers see the same values in the block.

    They do where each quoted value is quoted as a whole, ends in the line in which it begins, and is not too long for
    Python's reader.
    """
    codes = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(codes == _NEWLINE)
    edges = np.concatenate([[-1], newlines, [len(block)]])
    if np.diff(edges).max() > csv.field_size_limit():
        raise NeedsRowReader("a line is very long")
    quotes = np.flatnonzero(codes == _QUOTE)
    if not len(quotes):
        return
    if len(quotes) % 2 or np.any(np.searchsorted(quotes, newlines) % 2):
        raise NeedsRowReader("there is a line break in a value, or a quote too many")
    # A quote within a value is doubled: the first of the two ends a pair, the second begins the next.
    around = np.concatenate([[_NEWLINE], codes, [_NEWLINE]])
    before, after = around[quotes[::2]], around[quotes[1::2] + 2]
    delimiter = ord(layout.delimiter)
    if not (
        np.all((before == delimiter) | (before == _NEWLINE) | (before == _QUOTE))
        and np.all((after == delimiter) | (after == _NEWLINE) | (after == _CARRIAGE_RETURN) | (after == _QUOTE))
    ):
        raise NeedsRowReader("only part of a value is in quotes")


def _batch_of(block: bytes, layout: Layout, names: list[str], collector: RowCollector) -> pa.RecordBatch:
    assert collector.columns is not None
    number_of = {name: str(number) for number, name in enumerate(names)}  # the last of equal names, as in a dict
    read = {name: number_of[name] for name in collector.columns.read()}
    table = pa.csv.read_csv(
        pa.BufferReader(block),
        read_options=pa.csv.ReadOptions(column_names=list(map(str, range(len(names)))), block_size=len(block) + 1),
        parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter),
        convert_options=pa.csv.ConvertOptions(
            include_columns=sorted(set(read.values())),
            column_types=dict.fromkeys(read.values(), pa.string()),
            check_utf8=False,  # `line_blocks` has checked the block
        ),
    ).combine_chunks()
    columns = {name: _stripped(table.column(number).chunk(0)) for name, number in read.items()}
    if pc.any(pc.equal(columns[collector.columns.file], "")).as_py():
        raise NeedsRowReader("a row may hold only separators, as Excel writes them below a table")
    return pa.RecordBatch.from_pydict(columns)


def _stripped(column: pa.StringArray) -> pa.StringArray:
    """The values without surrounding whitespace, as by `str.strip`."""
    data, ends = content_of(column)
    codes = np.frombuffer(data, np.uint8)
    starts = np.concatenate([[0], ends[:-1]])
    filled = ends > starts
    outer = np.concatenate([codes[starts[filled]], codes[ends[filled] - 1]])
    if np.all((outer > ord(" ")) & (outer < 0x7F)):
        return column
    return pc.utf8_trim(column, _SPACES)
