"""A manifest file as batches of Arrow's columns: the fast way to the rows that `rows` defines, or none.

The contract of each kind of file: `batch.to_pylist()` are the next rows as `read_rows` gives them, but only with the
columns that are read, and with None for what a row lacks. What would be another row there, or an error, is declined.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.manifest.arrow_values import Declined
from model_trainer.sources.manifest.csv_batches import csv_batches
from model_trainer.sources.manifest.gathered import Gathered
from model_trainer.sources.manifest.json_batches import json_batches
from model_trainer.sources.manifest.layout import Layout
from model_trainer.sources.manifest.parquet import parquet_batches
from model_trainer.storage import files

__all__ = ["gather_batches", "read_batches"]


def gather_batches(path: str, layout: Layout, gathered: Gathered) -> bool:
    """Whether all rows of a file could be gathered; otherwise `gathered` is worth nothing, and nothing was said."""
    try:
        for batch in read_batches(path, layout, gathered):
            gathered.add_batch(batch)
    # A fault in the file or in a value: only the exact reader can say in which line it is.
    except (Declined, DataError, OSError, ValueError, pa.ArrowException) as reason:
        logging.debug("%s is read row by row: %s", path, reason)
        return False
    return gathered.labels is not None


def read_batches(path: str, layout: Layout, gathered: Gathered) -> Iterator[pa.RecordBatch]:
    """The rows of a file in batches, after `gathered` has noted its columns.

    Raises:
        Declined, DataError, OSError, ValueError, ArrowException: the file needs the exact reader.
    """
    if layout.kind == "json":
        raise Declined("a list in JSON is held in memory anyway")
    if layout.kind == "parquet":
        yield from parquet_batches(path, gathered)
        return
    with files.open_file(path) as file:
        yield from csv_batches(file, layout, gathered) if layout.kind == "csv" else json_batches(file, gathered)
