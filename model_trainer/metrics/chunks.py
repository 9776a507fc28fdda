"""Reads a table of predictions in chunks, so that a table that is larger than the memory can be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from model_trainer.storage.arrays import drop_pages

__all__ = ["Progress", "class_blocks", "row_chunks"]

# Called from time to time during long computations: what is being computed, and the fraction that is done, 0 to 1.
Progress = Callable[[str, float], None]


def row_chunks(table: np.ndarray, max_bytes: int = 64 << 20) -> Iterator[slice]:
    """Yields slices of rows that together cover the whole table, each at most `max_bytes` large but at least one row.

    After each slice the pages of a memory-mapped table that were read are dropped from the memory of this process; the
    operating system keeps them in its cache as long as it can.

    Example:
        >>> from model_trainer.metrics.chunks import row_chunks
        >>> list(row_chunks(np.zeros((5, 2), np.float32), max_bytes=16))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    row_bytes = max(1, table.dtype.itemsize * int(np.prod(table.shape[1:])))
    rows = max(1, max_bytes // row_bytes)
    for start in range(0, len(table), rows):
        yield slice(start, min(start + rows, len(table)))
        drop_pages(table)


def class_blocks(
    table: np.ndarray, max_bytes: int = 256 << 20, rows: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the columns of a table in blocks that fit into memory.

    Each block is a pass over the table, so larger blocks are faster.

    Args:
        table: float `(num_images, num_classes)`.
        max_bytes: size of a block; at least one column is read.
        rows: int, ascending: the images to read; None for all.

    Yields:
        `(classes, block)`: a slice of class indices, and float32 `(num_images, classes)` in Fortran order, in which
        the values of a class are adjacent. The memory is reused for the next block.

    Example:
        >>> from model_trainer.metrics.chunks import class_blocks
        >>> table = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> [(classes, block.tolist()) for classes, block in class_blocks(table, max_bytes=16)]
        [(slice(0, 2, None), [[0.0, 1.0], [3.0, 4.0]]), (slice(2, 3, None), [[2.0], [5.0]])]
    """
    num_classes = table.shape[1]
    num_images = len(table) if rows is None else len(rows)
    columns = max(1, min(num_classes, max_bytes // max(1, 4 * num_images)))
    block = np.empty((num_images, columns), np.float32, order="F")
    for start in range(0, num_classes, columns):
        classes = slice(start, min(start + columns, num_classes))
        width = classes.stop - start
        for chunk in row_chunks(table):
            if rows is None:
                block[chunk, :width] = table[chunk, classes]
            else:
                first, last = np.searchsorted(rows, [chunk.start, chunk.stop])
                block[first:last, :width] = table[rows[first:last], classes]
        yield classes, block[:, :width]
