"""Finds the byte offsets of records, from a valid `.idx` file, otherwise by scanning the records."""

from __future__ import annotations

import warnings
from array import array
from pathlib import Path

import numpy as np
from absl import logging

from model_trainer.errors import DataError, StorageError
from model_trainer.sources.recordio.framing import (
    MAGIC,
    MAX_RECORD_BYTES,
    BrokenRecord,
    Data,
    end_of_record,
    scan_records,
)
from model_trainer.storage import files
from model_trainer.storage.mapped import map_file

__all__ = ["broken_text", "find_records", "words_of"]

_BLOCK = 1 << 20  # records verified together, which limits the memory


def find_records(path: str, index: str | None) -> np.ndarray:
    """int64 `(num_records,)`: the byte offset of each record, in the order of the file.

    An index is used only if its records cover the file without a gap; otherwise a warning is logged, and the file is
    scanned. Memory: 24 bytes per record, of which 8 remain.

    Args:
        path: of the `.rec` file.
        index: path of the `.idx` file; None means the one next to `path`, if there is one.

    Raises:
        DataError: the file or the declared index is missing, or the file is damaged; the message gives the number of
            records read, and the byte offset.
    """
    data = _map(path)
    if not len(data):
        raise DataError(f"{path} is empty. Copy or pack it again.")
    default_index = str(Path(path).with_suffix(".idx"))
    if index is not None and not files.is_file(index):
        raise DataError(f"There is no index {index}. {path} can be read without one: leave out `index`.")
    if index is not None or files.is_file(default_index):
        offsets = _read_index(index or default_index)
        if offsets is not None and _covers(offsets, data):
            return offsets
        logging.warning(
            "%s does not fit %s, so it was not used; MXNet would read wrong records with it. Create the index again.",
            index or default_index,
            path,
        )
    scanned = array("q")
    try:
        scan_records(data, scanned)
    except BrokenRecord as error:
        raise DataError(broken_text(path, len(scanned), error)) from error
    return np.frombuffer(scanned, np.int64)


def words_of(data: Data) -> np.ndarray:
    """A view of the file as little-endian uint32; frames and labels consist of such words."""
    return np.frombuffer(data, "<u4", count=len(data) // 4) if len(data) else np.empty(0, "<u4")


def _map(path: str) -> Data:
    if "://" in path:
        raise DataError(f"{path}: RecordIO reads local files, and those in s3://, gs:// and az://.")
    try:
        return map_file(path)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; RecordIO needs a .rec file.") from None
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} could not be opened: {error.strerror or error}.") from error


def _read_index(path: str) -> np.ndarray | None:
    """int64, the second number of each line, sorted; None if the lines are not pairs of integers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy only warns about text that is not a number
        try:
            numbers = np.fromstring(files.read(path), np.int64, sep=" ")
        except (DeprecationWarning, ValueError, OSError):
            return None
    return np.sort(numbers[1::2]) if len(numbers) and len(numbers) % 2 == 0 else None


def _covers(offsets: np.ndarray, data: Data) -> bool:
    """Whether each record ends where the next one starts, from the first byte to the last."""
    words = words_of(data)
    if offsets[0] != 0 or offsets[-1] > len(data) - 8 or np.any(offsets % 4):
        return False
    for first in range(0, len(offsets), _BLOCK):
        block = offsets[first : first + _BLOCK]
        follows = np.append(offsets[first + 1 : first + _BLOCK + 1], [len(data)])[: len(block)]
        lengths = words[block // 4 + 1].astype(np.int64)
        ends = block + 8 + (lengths + 3 & ~3)
        for position in np.flatnonzero(lengths > MAX_RECORD_BYTES):  # in several parts
            try:
                ends[position] = end_of_record(data, int(block[position]))
            except BrokenRecord:
                return False
        if np.any(words[block // 4] != MAGIC) or np.any(ends != follows):
            return False
    return True


def broken_text(path: str, num_records: int, error: BrokenRecord) -> str:
    """The message for a file that is damaged after some records."""
    if num_records == 0:
        return f"{path} is not a RecordIO file, or its start is damaged: {error}."
    return (
        f"{path} is damaged: {num_records} records were read, then {error}. Copy or pack it again; if it is still "
        f"being written, wait for the end."
    )
