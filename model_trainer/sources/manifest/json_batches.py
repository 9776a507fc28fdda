"""Reads JSON Lines as Arrow record batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.json

from model_trainer.sources.manifest.arrow_values import NeedsRowReader
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.line_blocks import line_blocks
from model_trainer.sources.manifest.row_collector import RowCollector

__all__ = ["json_batches"]

_SAMPLE_LINES = 200
_MAX_DEPTH = 8  # of nested values
_EXACT_INTEGERS = 2**53  # float64 represents every integer below this


def json_batches(file: BinaryIO, collector: RowCollector) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a JSON Lines file in batches, see `batches`.

    The schema is inferred from the first lines; a later line with other columns or types is declined.

    Raises:
        NeedsRowReader, DataError, ValueError, ArrowException: the file needs the exact reader.
    """
    schema: pa.Schema | None = None
    for block in line_blocks(file):
        lines = _one_object_per_line(block)
        if not lines:
            continue
        if schema is None:
            sample = [json.loads(line) for line in lines.split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]]
            columns = _note_columns(sample, collector)
            schema = _schema_of(sample, columns)
        table = pa.json.read_json(
            pa.BufferReader(lines),
            read_options=pa.json.ReadOptions(block_size=len(lines) + 1),
            parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        ).combine_chunks()
        if table.num_rows != lines.count(b"\n") + 1:
            raise NeedsRowReader("there are several objects in a line")
        for column in table.columns:
            _check_numbers(column.chunk(0))
        read = columns.read()
        # A column that the user requested, but that no row has so far.
        missing = [name for name in read if name not in schema.names]
        if missing:
            raise NeedsRowReader(f"no row has {missing[0]!r} yet")
        yield pa.RecordBatch.from_arrays([table.column(name).chunk(0) for name in read], names=read)


def _one_object_per_line(block: bytes) -> bytes:
    """The lines of the block without the last line break; raises `NeedsRowReader` if an object may span several lines.

    If every line begins with "{" and ends with "}", no object continues in the next line, because within an object
    no "{" may follow a "}". So there is one object in each line if there are as many objects as lines.
    """
    lines = (block.replace(b"\r\n", b"\n") if b"\r" in block else block).strip(b"\n")
    if lines and not (lines.startswith(b"{") and lines.endswith(b"}") and lines.count(b"}\n{") == lines.count(b"\n")):
        raise NeedsRowReader("a line does not begin with { and end with }")
    return lines


def _note_columns(sample: list[dict[str, Any]], collector: RowCollector) -> Columns:
    for row in sample:
        before = collector.columns
        if before is None or not row.keys() <= collector.names.keys():
            now = collector.update_columns(row)
            for each in fields(Columns) if before is not None else ():
                name = getattr(before, each.name)
                if each.compare and name is not None and name != getattr(now, each.name):
                    raise NeedsRowReader(f"{name!r} is read in the first rows only")
    assert collector.columns is not None
    return collector.columns


def _schema_of(sample: list[dict[str, Any]], columns: Columns) -> pa.Schema:
    names = dict.fromkeys(name for row in sample for name in row)
    # Their values are converted to strings, where 1 and 1.0 differ.
    as_written = {columns.group, columns.split}
    return pa.schema(
        [(name, _type_of([row.get(name) for row in sample], floats=name not in as_written)) for name in names]
    )


def _type_of(values: list[Any], *, floats: bool, depth: int = 0) -> pa.DataType:
    """The common type of the values.

    Raises:
        NeedsRowReader: the types differ, or the values are nested too deeply.
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and not floats:
        return pa.int64()
    if kinds and kinds <= {int, float} and floats:
        return pa.float64()
    if len(kinds) > 1 or depth > _MAX_DEPTH:
        raise NeedsRowReader("a column holds values of several types")
    kind = next(iter(kinds), None)
    if kind is list:
        items = [item for value in values if value is not None for item in value]
        return pa.list_(_type_of(items, floats=floats, depth=depth + 1))
    if kind is dict:
        names = dict.fromkeys(name for value in values if value is not None for name in value)
        inner = {name: [value.get(name) for value in values if value is not None] for name in names}
        return pa.struct([(name, _type_of(each, floats=floats, depth=depth + 1)) for name, each in inner.items()])
    plain = {None: pa.null(), str: pa.string(), bool: pa.bool_()}.get(kind)
    if plain is None:
        raise NeedsRowReader("a group or split is a floating-point number")
    return plain


def _check_numbers(column: pa.Array) -> None:
    """Raises NeedsRowReader unless every number is the one that Python would parse.

    Arrow accepts "Inf", which is not JSON, and parses -0 and long integers as float64.
    """
    if pa.types.is_list(column.type):
        _check_numbers(column.flatten())
    elif pa.types.is_struct(column.type):
        for inner in column.flatten():
            _check_numbers(inner)
    elif pa.types.is_floating(column.type):
        numbers = np.asarray(column.fill_null(1.0))
        if not np.all(np.abs(numbers) < _EXACT_INTEGERS) or np.any(np.signbit(numbers) & (numbers == 0)):
            raise NeedsRowReader("a number is not finite, or very large, or -0")
