from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_trainer.metrics.chunks import class_blocks, row_chunks

TABLE = np.random.default_rng(0).random((11, 7), np.float32)


@pytest.mark.parametrize("max_bytes", [1, 28, 90, 1 << 20])
def test_row_chunks_cover_the_whole_table(max_bytes: int) -> None:
    assert np.array_equal(np.concatenate([TABLE[rows] for rows in row_chunks(TABLE, max_bytes)]), TABLE)


@pytest.mark.parametrize("max_bytes", [1, 44, 100, 1 << 20])
def test_class_blocks_cover_the_whole_table(max_bytes: int) -> None:
    blocks = [block.copy() for _, block in class_blocks(TABLE, max_bytes)]
    assert np.array_equal(np.concatenate(blocks, axis=1), TABLE)


@pytest.mark.parametrize("max_bytes", [1, 44, 1 << 20])
def test_class_blocks_of_selected_rows_cover_those_rows(max_bytes: int) -> None:
    rows = np.array([0, 3, 4, 10])
    blocks = [block.copy() for _, block in class_blocks(TABLE, max_bytes, rows)]
    assert np.array_equal(np.concatenate(blocks, axis=1), TABLE[rows])


def test_the_values_of_a_class_are_contiguous() -> None:
    assert all(block[:, 0].flags.c_contiguous for _, block in class_blocks(TABLE, 100))


def test_a_table_without_rows_has_no_chunks() -> None:
    assert list(row_chunks(TABLE[:0])) == []


def resident_kilobytes() -> int:
    """Pages of mapped files that are in the memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports resident pages")
def test_pages_of_a_mapped_file_are_dropped_after_each_chunk(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.ones((8000, 1000), np.float32))  # 32 MB
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    before = resident_kilobytes()
    for rows in row_chunks(table, max_bytes=1 << 20):
        assert table[rows].sum() > 0
        assert resident_kilobytes() - before < 8192


def test_changes_of_a_private_map_are_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", TABLE)
    table = np.load(tmp_path / "table.npy", mmap_mode="c")
    table[:] = 3.0
    assert all((table[rows] == 3.0).all() for rows in row_chunks(table, 28))
    assert (table == 3.0).all()
