"""Reads Parquet, as Arrow record batches and as rows."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model_trainer.errors import DataError
from model_trainer.sources.manifest.arrow_values import Declined
from model_trainer.sources.manifest.gathered import Gathered
from model_trainer.sources.manifest.layout import open_bytes

__all__ = ["parquet_batches", "parquet_rows"]

_BATCH_ROWS = 16_384  # a few bytes can encode a string that repeats in every row: this limits the memory of a batch
# A path takes a good part of a byte of the file, however well it is compressed; equal ones take next to nothing.
_MAX_ROWS_PER_BYTE = 10
_PLAUSIBLE_ROWS = 1_000_000  # in a file of any size


def parquet_batches(path: str, gathered: Gathered) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a Parquet file in batches, see `batches`.

    Raises:
        Declined, DataError: the file needs the exact reader.
    """
    with _open_parquet(path) as file:
        names = file.schema_arrow.names
        read = gathered.note_columns(names).read()
        for batch in file.iter_batches(_BATCH_ROWS, columns=read):
            batch.validate(full=True)  # also that text is UTF-8
            yield pa.RecordBatch.from_arrays([_plain(batch.column(name)) for name in read], names=read)


def parquet_rows(path: str, only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file; `only` are the columns to read, empty reads all.

    Raises:
        DataError: the file is missing, damaged, or not Parquet.
    """
    with _open_parquet(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(only) or None):
            yield from batch.to_pylist()


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    with open_bytes(path) as content:
        try:
            with pq.ParquetFile(content) as file:
                names = file.schema_arrow.names
                duplicate = next((name for name in names if names.count(name) > 1), None)
                if duplicate is not None:
                    raise DataError(f"{path}: the column {duplicate!r} occurs duplicate. Rename or remove one.")
                num_rows, num_bytes = file.metadata.num_rows, content.seek(0, io.SEEK_END)
                if num_rows > _PLAUSIBLE_ROWS + _MAX_ROWS_PER_BYTE * num_bytes:
                    raise DataError(
                        f"{path} claims {num_rows:,} rows in {num_bytes:,} bytes, which no table of images has. "
                        "Check where the file comes from."
                    )
                yield file
        except DataError:
            raise
        except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"{path} could not be read as Parquet ({reason}). Write it again; if it is another kind of table, give "
                "it the suffix of that kind, or set format='...'."
            ) from error


def _plain(column: pa.Array) -> pa.Array:
    """The column without dictionary encoding."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_list(column.type) and pa.types.is_dictionary(column.type.value_type):
        raise Declined("lists are dictionary-encoded")
    return column
