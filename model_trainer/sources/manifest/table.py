"""The columns of all rows beside the labels, gathered in little memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from model_trainer.errors import DataError
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.values import crop_of, file_of, is_missing, weight_of
from model_trainer.sources.packed_strings import PackedStrings

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["Table"]

_ON_WINDOWS = os.name == "nt"


class Table:
    """Paths, weights, crops, groups and splits; columns that the manifest lacks take nothing.

    For each row: its path and 8 bytes, 4 for a weight, 16 for a crop, 8 for a group, 4 for a split.

    Args:
        root: the folder below which the files are; absolute paths and URLs stay as they are.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.join(root, "") if root and "://" not in root else f"{root.rstrip('/')}/" if root else ""
        self.paths = bytearray()
        self.starts = array("q", [0])
        self.num_rows = 0
        self.weights: array[float] | None = None
        self.crops: array[int] | None = None
        self.groups: array[int] | None = None
        self.splits: array[int] | None = None
        self.split_ids: dict[str, int] = {}
        self.first_windows_path = ""

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        """Takes the next row.

        Raises:
            DataError: a value makes no sense; says so without the row.
        """
        path = file_of(row.get(columns.file), columns.file)
        if "\\" in path and "/" not in path and not _ON_WINDOWS:
            self.first_windows_path = self.first_windows_path or path
            path = path.replace("\\", "/")
        if not path.startswith("/") and "://" not in path and not (_ON_WINDOWS and os.path.isabs(path)):
            path = self.root + path
        try:
            self.paths += os.fsencode(path)
        except UnicodeEncodeError:
            raise DataError(f"{columns.file!r} is {path!r}, which no file can be called.") from None
        self.starts.append(len(self.paths))
        self._start_columns(columns)
        if columns.weight is not None and self.weights is not None:
            self.weights.append(weight_of(row.get(columns.weight), columns.weight))
        if columns.crop is not None and self.crops is not None:
            self.crops.extend(crop_of(row.get(columns.crop), columns.crop))
        if columns.group is not None and self.groups is not None:
            self.groups.append(_hash_of_group(row.get(columns.group), self.num_rows))
        if columns.split is not None and self.splits is not None:
            self.splits.append(self._split_id(row.get(columns.split)))
        self.num_rows += 1

    def add_batch(self, batch: RecordBatch, columns: Columns) -> None:
        """Takes the next rows, a column of Arrow for each one that is read.

        Raises:
            Declined: they are to be added one by one; some columns may have been taken.
            DataError: a value makes no sense.
        """
        from model_trainer.sources.manifest import arrow_values

        def column(name: str | None) -> Any:
            return batch.column(name)

        paths = arrow_values.paths_of(column(columns.file), columns.file, self.root)
        self.first_windows_path = self.first_windows_path or paths.first_windows_path
        self.starts.frombytes((paths.ends + len(self.paths)).tobytes())
        self.paths += paths.data
        self._start_columns(columns)
        if columns.weight is not None and self.weights is not None:
            weights = arrow_values.weights_of(column(columns.weight), columns.weight)
            self.weights.frombytes(weights.tobytes())
        if columns.crop is not None and self.crops is not None:
            self.crops.frombytes(arrow_values.crops_of(column(columns.crop), columns.crop).tobytes())
        if columns.group is not None and self.groups is not None:
            values, codes = arrow_values.distinct(column(columns.group))
            hashes = np.fromiter(map(hash, map(str, values)), np.int64, len(values))[codes]
            alone = np.flatnonzero(arrow_values.is_empty(column(columns.group), text_too=True))
            hashes[alone] = [_hash_of_group(None, self.num_rows + row) for row in alone.tolist()]
            self.groups.frombytes(hashes.tobytes())
        if columns.split is not None and self.splits is not None:
            values, codes = arrow_values.distinct(column(columns.split))
            ids = np.array([self._split_id(value) for value in values], np.int32)
            self.splits.frombytes(ids[codes].tobytes())
        self.num_rows += len(paths.ends)

    def _start_columns(self, columns: Columns) -> None:
        """Makes the columns that are there, as if the rows so far had no value in them."""
        if columns.weight is not None and self.weights is None:
            self.weights = array("f", [1.0]) * self.num_rows
        if columns.crop is not None and self.crops is None:
            self.crops = array("i", [0]) * (4 * self.num_rows)
        if columns.group is not None and self.groups is None:
            self.groups = array("q", (_hash_of_group(None, row) for row in range(self.num_rows)))
        if columns.split is not None and self.splits is None:
            self.splits = array("i", [self._split_id(None)]) * self.num_rows

    def texts(self) -> PackedStrings:
        """The paths."""
        return PackedStrings(bytes(self.paths), np.frombuffer(self.starts, np.int64))

    def weight_column(self) -> np.ndarray | None:
        """float32 `(num_rows,)`."""
        return None if self.weights is None else np.frombuffer(self.weights, np.float32)

    def crop_column(self) -> np.ndarray | None:
        """int32 `(num_rows, 4)` top, left, height, width; None where no row has a crop."""
        crops = np.zeros(0, np.int32) if self.crops is None else np.frombuffer(self.crops, np.int32)
        return crops.reshape(-1, 4) if crops.any() else None

    def group_column(self) -> np.ndarray | None:
        """int32 `(num_rows,)`, numbered in the order of appearance; a row without group has one of its own."""
        if self.groups is None:
            return None
        _, first, group = np.unique(np.frombuffer(self.groups, np.int64), return_index=True, return_inverse=True)
        # Hashes of text differ from one process to the next, and with them their order.
        number = np.empty(len(first), np.int32)
        number[np.argsort(first)] = np.arange(len(first))
        return number[group]

    def split_counts(self) -> dict[str, int]:
        """The number of rows in each split, by its name."""
        if self.splits is None:
            return {}
        counts = np.bincount(np.frombuffer(self.splits, np.int32), minlength=len(self.split_ids))
        return {name: int(counts[number]) for name, number in self.split_ids.items() if counts[number]}

    def rows_of_split(self, name: str) -> np.ndarray:
        """int64: the rows of the split, one of `split_counts`."""
        assert self.splits is not None
        return np.flatnonzero(np.frombuffer(self.splits, np.int32) == self.split_ids[name])

    def _split_id(self, value: object) -> int:
        name = "" if is_missing(value) else str(value)
        return self.split_ids.setdefault(name, len(self.split_ids))


def _hash_of_group(group: object, row: int) -> int:
    """64 bits in place of the text; a row without a group has a group of its own.

    Of 50 million groups two share them once in 10,000 data sets, and then they only stay together.
    """
    return hash(("a group of its own", row)) if is_missing(group) else hash(str(group))
