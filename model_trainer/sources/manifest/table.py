"""Collects the columns other than the labels in compact arrays."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from model_trainer.errors import DataError
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.paths import full_path
from model_trainer.sources.manifest.values import crop_of, file_of, is_missing, weight_of
from model_trainer.sources.packed_strings import PackedStrings

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["Table"]

_ON_WINDOWS = os.name == "nt"


class Table:
    """Paths, weights, crops, groups and splits; columns that the manifest lacks take no memory.

    A row takes its path and 8 bytes, 4 for a weight, 16 for a crop, 8 for a group, 4 for a split.

    Args:
        root: the folder to which paths are relative; absolute paths and URLs are unchanged.
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
        """Adds the next row.

        Raises:
            DataError: a value is invalid; the message does not name the row.
        """
        path = file_of(row.get(columns.file), columns.file)
        if "\\" in path and "/" not in path and not _ON_WINDOWS:
            self.first_windows_path = self.first_windows_path or path
            path = path.replace("\\", "/")
        path = full_path(path, self.root)
        try:
            self.paths += os.fsencode(path)
        except UnicodeEncodeError:
            raise DataError(f"{columns.file!r} is {path!r}, which cannot be the name of a file.") from None
        self.starts.append(len(self.paths))
        self._create_columns(columns)
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
        """Adds the next rows, an Arrow column for each column that is read.

        Raises:
            NeedsRowReader: the rows must be added one by one; some columns may have been added already.
            DataError: a value is invalid.
        """
        from model_trainer.sources.manifest import arrow_values

        def column(name: str | None) -> Any:
            return batch.column(name)

        paths = arrow_values.paths_of(column(columns.file), columns.file, self.root)
        self.first_windows_path = self.first_windows_path or paths.first_windows_path
        self.starts.frombytes((paths.ends + len(self.paths)).tobytes())
        self.paths += paths.data
        self._create_columns(columns)
        if columns.weight is not None and self.weights is not None:
            weights = arrow_values.weights_of(column(columns.weight), columns.weight)
            self.weights.frombytes(weights.tobytes())
        if columns.crop is not None and self.crops is not None:
            self.crops.frombytes(arrow_values.crops_of(column(columns.crop), columns.crop).tobytes())
        if columns.group is not None and self.groups is not None:
            values, codes = arrow_values.distinct(column(columns.group))
            hashes = np.fromiter(map(hash, map(str, values)), np.int64, len(values))[codes]
            ungrouped = np.flatnonzero(arrow_values.is_empty(column(columns.group), text_too=True))
            hashes[ungrouped] = [_hash_of_group(None, self.num_rows + row) for row in ungrouped.tolist()]
            self.groups.frombytes(hashes.tobytes())
        if columns.split is not None and self.splits is not None:
            values, codes = arrow_values.distinct(column(columns.split))
            ids = np.array([self._split_id(value) for value in values], np.int32)
            self.splits.frombytes(ids[codes].tobytes())
        self.num_rows += len(paths.ends)

    def _create_columns(self, columns: Columns) -> None:
        """Creates the columns that have appeared, with missing values for the rows so far."""
        if columns.weight is not None and self.weights is None:
            self.weights = array("f", [1.0]) * self.num_rows
        if columns.crop is not None and self.crops is None:
            self.crops = array("i", [0]) * (4 * self.num_rows)
        if columns.group is not None and self.groups is None:
            self.groups = array("q", (_hash_of_group(None, row) for row in range(self.num_rows)))
        if columns.split is not None and self.splits is None:
            self.splits = array("i", [self._split_id(None)]) * self.num_rows

    def packed_paths(self) -> PackedStrings:
        """The paths of all rows."""
        return PackedStrings(bytes(self.paths), np.frombuffer(self.starts, np.int64))

    def weight_column(self) -> np.ndarray | None:
        """float32 `(num_rows,)`: the weights; None if the manifest has none."""
        return None if self.weights is None else np.frombuffer(self.weights, np.float32)

    def crop_column(self) -> np.ndarray | None:
        """int32 `(num_rows, 4)` top, left, height, width; None if no row has a crop."""
        crops = np.zeros(0, np.int32) if self.crops is None else np.frombuffer(self.crops, np.int32)
        return crops.reshape(-1, 4) if crops.any() else None

    def group_column(self) -> np.ndarray | None:
        """int32 `(num_rows,)`: group numbers in the order of appearance; a row without a group has one of its own."""
        if self.groups is None:
            return None
        _, first, group = np.unique(np.frombuffer(self.groups, np.int64), return_index=True, return_inverse=True)
        # The hash of a string differs from process to process, and with it the order that np.unique gives.
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
    """A 64-bit hash of the group; a row without a group has a group of its own.

    With 50 million groups, two collide in one of 10,000 data sets; they then merely go to the same split.
    """
    return hash(("a group of its own", row)) if is_missing(group) else hash(str(group))
