"""Reads a manifest as Arrow record batches: the fast path for the rows that `rows` defines.

The contract for each file format: `batch.to_pylist()` gives the next rows as `read_rows` does, with only the columns
that are read, and None for missing values. Whatever would give a different row, or an error, raises `NeedsRowReader`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.manifest.arrow_values import NeedsRowReader
from model_trainer.sources.manifest.csv_batches import csv_batches
from model_trainer.sources.manifest.json_batches import json_batches
from model_trainer.sources.manifest.layout import Layout
from model_trainer.sources.manifest.parquet import parquet_batches
from model_trainer.sources.manifest.row_collector import RowCollector
from model_trainer.storage import files

__all__ = ["gather_batches", "read_batches"]


def gather_batches(path: str, layout: Layout, collector: RowCollector) -> bool:
    """Adds all rows of a file to `collector`; returns False, without a message, if the file needs the exact reader.

    `collector` is then incomplete and must be discarded.
    """
    try:
        for batch in read_batches(path, layout, collector):
            collector.add_batch(batch)
    # An error in the file or in a value: only the exact reader knows its line. JSON may be nested too deeply.
    except (NeedsRowReader, DataError, OSError, ValueError, RecursionError, pa.ArrowException) as reason:
        logging.debug("%s is read row by row: %s", path, reason)
        return False
    return collector.labels is not None


def read_batches(path: str, layout: Layout, collector: RowCollector) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file in batches; calls `collector.update_columns` before the first one.

    Raises:
        NeedsRowReader, DataError, OSError, ValueError, ArrowException: the file needs the exact reader.
    """
    if layout.kind == "json":
        raise NeedsRowReader("a JSON list is held in memory anyway")
    if layout.kind == "parquet":
        yield from parquet_batches(path, collector)
        return
    with files.open_file(path) as file:
        yield from csv_batches(file, layout, collector) if layout.kind == "csv" else json_batches(file, collector)
