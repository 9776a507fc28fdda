"""The files of an evaluation: `evaluation.json`, predictions as CSV and Parquet, probabilities, and images.

`docs/evaluation.md` documents the schema of `evaluation.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from model_trainer.messages import as_utf8
from model_trainer.storage import files
from model_trainer.storage.arrays import write_npy
from model_trainer.storage.lines import csv_lines
from model_trainer.training.run_folder import EVALUATION_FILE

__all__ = ["FILE_NAME", "FOLDER", "IMAGES", "PREDICTION_FILES", "write_evaluation", "write_predictions"]

FOLDER, FILE_NAME = EVALUATION_FILE.split("/")
PREDICTION_FILES = ("predictions.csv", "predictions.parquet", "probabilities.npy")
IMAGES = "images"  # a folder
VERSION = 1  # `report/evaluation_file.py` reads it
ROWS_PER_CHUNK = 20_000

Column = np.ndarray | Sequence[Any]


def write_evaluation(folder: PurePath, content: Mapping[str, Any]) -> None:
    """Writes `content` and the version of the schema to `evaluation.json`.

    Raises:
        StorageError: it cannot be written.
        ValueError: `content` has a number that is not finite.
    """
    text = json.dumps(as_utf8({"version": VERSION, **content}), indent=1, allow_nan=False)
    files.write_text(folder / FILE_NAME, text + "\n")


def write_predictions(
    folder: PurePath, names: Sequence[str], columns: Mapping[str, Column], probabilities: np.ndarray
) -> None:
    """Writes `predictions.csv`, `predictions.parquet` and `probabilities.npy`.

    Args:
        names: the name of each image.
        columns: further columns of the table, one value for each image.
        probabilities: float32 `(num_images, num_classes)`.

    Raises:
        StorageError: one of them cannot be written.
    """
    table = {"image": names, **columns}
    files.write(folder / "predictions.csv", _csv_chunks(table, len(names)))
    _write_parquet(folder / "predictions.parquet", table, len(names))
    write_npy(folder / "probabilities.npy", probabilities)


def _csv_chunks(table: Mapping[str, Column], num_rows: int) -> Iterator[bytes]:
    yield csv_lines([tuple(table)]).encode()
    for start in range(0, num_rows, ROWS_PER_CHUNK):
        chunk = [_values(column[start : start + ROWS_PER_CHUNK]) for column in table.values()]
        rows = ([_cell(value) for value in row] for row in zip(*chunk, strict=True))
        yield csv_lines(rows).encode("utf-8", "backslashreplace")


def _write_parquet(path: PurePath, table: Mapping[str, Column], num_rows: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with files.atomic_write(path) as partial:
        writer: parquet.ParquetWriter | None = None
        try:
            for start in range(0, max(num_rows, 1), ROWS_PER_CHUNK):
                chunk = {name: _arrow(column[start : start + ROWS_PER_CHUNK]) for name, column in table.items()}
                batch = pa.table(chunk)
                writer = writer or parquet.ParquetWriter(partial, batch.schema)
                writer.write_table(batch)
        finally:
            if writer is not None:
                writer.close()


def _arrow(column: Column) -> Any:
    import pyarrow as pa

    if isinstance(column, np.ndarray) and column.dtype != object:
        return pa.array(column)
    return pa.array([as_utf8(str(value)) for value in column], pa.string())


def _values(column: Column) -> Sequence[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else value
