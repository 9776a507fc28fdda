"""The columns of all rows beside the labels, gathered in little memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from model_trainer.errors import DataError
from model_trainer.sources.manifest.columns import Columns
from model_trainer.sources.manifest.values import crop_of, file_of, is_missing, weight_of
from model_trainer.sources.packed_strings import PackedStrings

__all__ = ["Table"]

_ON_WINDOWS = os.name == "nt"


class Table:
    """Paths, weights, crops, groups and parts; columns that the manifest lacks take nothing.

    For each row: its path and 8 bytes, 4 for a weight, 16 for a crop, 8 for a group, 4 for a part.

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
        self.parts: array[int] | None = None
        self.part_ids: dict[str, int] = {}
        self.first_windows_path = ""

    def add(self, row: Mapping[str, Any], columns: Columns) -> None:
        """Takes the next row.

        Raises:
            DataError: a value makes no sense; says so without the place.
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
        if columns.weight is not None:
            if self.weights is None:
                self.weights = array("f", [1.0]) * self.num_rows
            self.weights.append(weight_of(row.get(columns.weight), columns.weight))
        if columns.crop is not None:
            if self.crops is None:
                self.crops = array("i", [0]) * (4 * self.num_rows)
            self.crops.extend(crop_of(row.get(columns.crop), columns.crop))
        if columns.group is not None:
            if self.groups is None:
                self.groups = array("q", map(_hash_of_row, range(self.num_rows)))
            group = row.get(columns.group)
            # 64 bits in place of the text: of 50 million groups two share them once in 10,000 data sets, and then
            # they only stay together.
            self.groups.append(_hash_of_row(self.num_rows) if is_missing(group) else hash(str(group)))
        if columns.split is not None:
            if self.parts is None:
                self.parts = array("i", [self._part_of(None)]) * self.num_rows
            self.parts.append(self._part_of(row.get(columns.split)))
        self.num_rows += 1

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

    def part_counts(self) -> dict[str, int]:
        """The number of rows in each part, by its name."""
        if self.parts is None:
            return {}
        counts = np.bincount(np.frombuffer(self.parts, np.int32), minlength=len(self.part_ids))
        return {name: int(counts[part]) for name, part in self.part_ids.items() if counts[part]}

    def rows_of_part(self, name: str) -> np.ndarray:
        """int64: the rows of the part, one of `part_counts`."""
        assert self.parts is not None
        return np.flatnonzero(np.frombuffer(self.parts, np.int32) == self.part_ids[name])

    def _part_of(self, value: object) -> int:
        name = "" if is_missing(value) else str(value)
        return self.part_ids.setdefault(name, len(self.part_ids))


def _hash_of_row(row: int) -> int:
    return hash(("a group of its own", row))
