"""Reads Parquet, as Arrow record batches and as rows."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model_trainer.errors import DataError
from model_trainer.sources.manifest.arrow_values import NeedsRowReader, is_text
from model_trainer.sources.manifest.columns import check_distinct
from model_trainer.sources.manifest.layout import open_bytes
from model_trainer.sources.manifest.row_collector import RowCollector

__all__ = ["MAX_ROWS_PER_BYTE", "PLAUSIBLE_ROWS", "decoded_bytes", "parquet_batches", "parquet_rows"]

_BATCH_ROWS = 4_096  # a few bytes can encode a string that repeats in every row: this limits the memory of a batch
# A path takes a good part of a byte in the file, however well it is compressed; repeated ones take almost nothing.
MAX_ROWS_PER_BYTE = 10
PLAUSIBLE_ROWS = 1_000_000  # in a file of any size
_MAX_EXPANSION = 100  # decoded bytes for each byte of the file
_PLAUSIBLE_BYTES = 2**28  # decoded from a file of any size


@dataclass(frozen=True)
class _File:
    parquet: pq.ParquetFile
    num_bytes: int


def parquet_batches(path: str, collector: RowCollector) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a Parquet file in batches, see `batches`.

    Raises:
        NeedsRowReader, DataError: the file needs the exact reader.
    """
    with _open_parquet(path) as file:
        read = collector.update_columns(file.parquet.schema_arrow.names).read()
        for batch in _limited_batches(path, file, read):
            batch.validate(full=True)  # also that text is UTF-8
            yield pa.RecordBatch.from_arrays([_without_autograph(batch.column(name)) for name in read], names=read)


def parquet_rows(path: str, only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file; `only` are the columns to read, empty reads all.

    Raises:
        DataError: the file is missing, damaged, or not Parquet.
    """
    with _open_parquet(path) as file:
        for batch in _limited_batches(path, file, list(only) or None):
            yield from batch.to_pylist()


def _limited_batches(path: str, file: _File, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """The batches of a file, unless they decode to far more bytes than a table of images has."""
    decoded, limit = 0, _PLAUSIBLE_BYTES + _MAX_EXPANSION * file.num_bytes
    for batch in file.parquet.iter_batches(_BATCH_ROWS, columns=columns):
        decoded += sum(map(decoded_bytes, batch.columns))
        if decoded > limit:
            raise DataError(
                f"{path} decodes to more than {limit:,} bytes from {file.num_bytes:,}, which is not plausible for a "
                "table of images. Check where the file comes from."
            )
        yield batch


def decoded_bytes(column: pa.Array) -> int:
    """The size of a column in bytes after dictionary decoding, which stores equal strings separately."""
    if not pa.types.is_dictionary(column.type) or not len(column.dictionary) or not is_text(column.dictionary):
        return column.nbytes
    lengths = pc.fill_null(pc.binary_length(column.dictionary), 0)
    return int(pc.sum(pc.take(lengths, pc.drop_null(column.indices))).as_py() or 0)


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[_File]:
    with open_bytes(path) as content:
        try:
            with pq.ParquetFile(content) as file:
                check_distinct(file.schema_arrow.names, path)
                num_rows, num_bytes = file.metadata.num_rows, content.seek(0, io.SEEK_END)
                if num_rows > PLAUSIBLE_ROWS + MAX_ROWS_PER_BYTE * num_bytes:
                    raise DataError(
                        f"{path} claims {num_rows:,} rows in {num_bytes:,} bytes, which is not plausible for a table "
                        "of images. Check where the file comes from."
                    )
                yield _File(file, num_bytes)
        except DataError:
            raise
        except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"{path} could not be read as Parquet ({reason}). Write it again; if it is another kind of table, give "
                "it the suffix of that kind, or set format='...'."
            ) from error


def _without_autograph(column: pa.Array) -> pa.Array:
    """The column without dictionary encoding."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_list(column.type) and pa.types.is_dictionary(column.type.value_type):
        raise NeedsRowReader("lists are dictionary-encoded")
    return column
