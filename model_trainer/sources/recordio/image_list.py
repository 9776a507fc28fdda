"""MXNet's `.lst` files: one line per image, `index<TAB>label...<TAB>path`."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass

import numpy as np

from model_trainer.errors import DataError, StorageError
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage import files

__all__ = ["ImageList", "num_labels_of_first_line", "read_image_list"]

_BLOCK = 1 << 20  # labels converted to an array together, which limits the memory


@dataclass(frozen=True, eq=False)
class ImageList:
    """The columns of a list.

    Attributes:
        indices: int64 `(num_lines,)`; im2rec uses them as the ids of the records.
        labels: the numbers in each line.
        paths: the path in each line, as written.
    """

    indices: np.ndarray
    labels: NumberRows
    paths: PackedStrings

    def labels_of(self, ids: np.ndarray, path: str, records: str, rows: np.ndarray) -> NumberRows:
        """The labels of the records with these ids.

        Args:
            ids: uint64 `(num_records,)`.
            path: of the list, for messages.
            records: path of the records, for messages.
            rows: int64 `(num_records,)`, the number of each record, for messages.

        Raises:
            DataError: an id is not in the list, or twice in the list or the records.
        """
        order = np.argsort(self.indices, kind="stable")
        _check_once(self.indices[order], f"{path} has the index {{}} twice")
        _check_once(
            np.sort(ids), f"{records} has several records with the id {{}}, so {path} cannot assign their labels"
        )
        positions = np.minimum(np.searchsorted(self.indices[order], ids.astype(np.int64)), len(order) - 1)
        lines = order[positions]
        missing = np.flatnonzero(self.indices[lines] != ids.astype(np.int64))
        if len(missing):
            raise DataError(
                f"{records}#{rows[missing[0]]} has the id {ids[missing[0]]}, which is not an index in {path}. "
                "Give the list that the file was packed from."
            )
        return self.labels.take(lines)


def read_image_list(path: str) -> ImageList:
    """Reads a list; the labels of a line are all columns between index and path.

    Raises:
        DataError: the list is missing or empty, or a line is invalid; the message names the line.
    """
    indices, widths, flat = array("q"), array("q"), array("f")
    names, lengths = bytearray(), array("q")
    blocks: list[NumberRows] = []
    try:
        with files.open_text(path, errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                cells = [cell.strip() for cell in line.split("\t")]
                if cells == [""]:
                    continue
                if len(cells) < 3:
                    raise DataError(
                        f"{path} line {number}: expected index, label and path with tabs between them, "
                        f"got {line.strip()[:80]!r}."
                    )
                try:
                    indices.append(int(cells[0]))
                    flat.extend(map(float, cells[1:-1]))
                except (ValueError, OverflowError):
                    raise DataError(
                        f"{path} line {number}: index should be an integer and labels numbers, got {cells[:-1]}."
                    ) from None
                widths.append(len(cells) - 2)
                name = os.fsencode(cells[-1])
                names += name
                lengths.append(len(name))
                if len(flat) >= _BLOCK:
                    blocks.append(NumberRows.of_flat(np.array(widths), np.array(flat)))
                    widths, flat = array("q"), array("f")
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} could not be opened: {error.strerror or error}.") from error
    if not len(indices):
        raise DataError(f"{path} is empty. A list has a line for each image: index, labels and path, with tabs.")
    blocks.append(NumberRows.of_flat(np.array(widths, np.int64), np.array(flat, np.float32)))
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return ImageList(np.array(indices), NumberRows.joined(blocks), PackedStrings(bytes(names), starts))


def num_labels_of_first_line(path: str) -> int:
    """The number of labels in the first line of a list; 0 if there is no list."""
    try:
        with files.open_text(path, errors="surrogateescape") as file:
            return max(file.readline().count("\t") - 1, 0)
    except OSError:
        return 0


def _check_once(numbers: np.ndarray, problem: str) -> None:
    """Raises DataError if the sorted `numbers` contain one twice; `problem` is a format string for it."""
    twice = np.flatnonzero(numbers[1:] == numbers[:-1])
    if len(twice):
        raise DataError(f"{problem.format(numbers[twice[0]])}.")
