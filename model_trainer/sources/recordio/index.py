"""Where the records of a file are: by its `.idx` where that fits, otherwise by walking through it."""

from __future__ import annotations

import warnings
from array import array
from pathlib import Path

import numpy as np
from absl import logging

from model_trainer.errors import DataError
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

__all__ = ["find_records", "words_of"]

_BLOCK = 1 << 20  # records looked at together, which bounds the memory


def find_records(path: str, index: str | None) -> np.ndarray:
    """int64 `(num_records,)`: where each record of the file `path` begins, in bytes, in the file's order.

    An index is believed only where it leads from the first byte to the last without a gap; otherwise a warning
    says so, and the file is walked through. Memory: 24 bytes for each record, 8 of them stay.

    Args:
        index: path of the `.idx`; None takes the one beside the file, where there is one.

    Raises:
        DataError: the file or the given index is missing, or the file is damaged; says how many records were read
            and where it broke.
    """
    data = _map(path)
    if not len(data):
        raise DataError(f"{path} is empty. Copy or pack it again.")
    beside = str(Path(path).with_suffix(".idx"))
    if index is not None and not files.is_file(index):
        raise DataError(f"There is no index {index}. Without `index` {path} is read all the same.")
    if index is not None or files.is_file(beside):
        offsets = _read_index(index or beside)
        if offsets is not None and _leads_through(offsets, data):
            return offsets
        logging.warning(
            "%s does not fit %s, so it was not used; MXNet would read wrong records by it. Write the index again.",
            index or beside,
            path,
        )
    found = array("q")
    try:
        scan_records(data, found)
    except BrokenRecord as error:
        raise DataError(_broken(path, len(found), error)) from error
    return np.frombuffer(found, np.int64)


def words_of(data: Data) -> np.ndarray:
    """The file as little-endian uint32, without reading it; every frame and every label is one word or several."""
    return np.frombuffer(data, "<u4", count=len(data) // 4) if len(data) else np.empty(0, "<u4")


def _map(path: str) -> Data:
    if "://" in path:
        raise DataError(f"{path}: RecordIO reads local files, through a memory map. Copy the file to this machine.")
    try:
        return map_file(path)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; RecordIO needs a .rec file.") from None
    except OSError as error:
        raise DataError(f"{path} could not be opened: {error.strerror or error}.") from error


def _read_index(path: str) -> np.ndarray | None:
    """int64, the second number of each line, sorted; None where the lines are no pairs of whole numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy only warns of text that is no number
        try:
            numbers = np.fromstring(files.read(path), np.int64, sep=" ")
        except (DeprecationWarning, ValueError, OSError):
            return None
    return np.sort(numbers[1::2]) if len(numbers) and len(numbers) % 2 == 0 else None


def _leads_through(offsets: np.ndarray, data: Data) -> bool:
    """Whether each record ends where the next begins, from the first byte to the last."""
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


def _broken(path: str, num_records: int, error: BrokenRecord) -> str:
    if num_records == 0:
        return f"{path} is no RecordIO file, or its begin is damaged: {error}."
    return (
        f"{path} is damaged: {num_records} records were read, then {error}. Copy or pack it again; if it is still "
        f"being written, wait for the end."
    )
