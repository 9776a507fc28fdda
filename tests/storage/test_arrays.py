"""Tables that are written in chunks of rows, and `.npy` files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from model_trainer.storage import arrays, files
from model_trainer.storage.arrays import RowWriter, map_npy, write_npy
from model_trainer.storage.memory import Memory


@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["on disk", "in memory"])
def test_a_written_table_has_its_rows_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES_IN_MEMORY", limit)
    table = np.random.default_rng(0).random((10, 3)).astype(np.float32)
    writer = RowWriter(3, 10, tmp_path)
    for rows in np.split(table, [1, 4]):
        writer.append(rows)
    finished = writer.finish()
    assert isinstance(finished, np.memmap) == (limit == 0)
    np.testing.assert_array_equal(finished, table)


def test_the_temporary_file_of_a_table_is_deleted_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES_IN_MEMORY", 0)
    writer = RowWriter(1, 1, tmp_path)
    writer.append(np.ones((1, 1)))
    table = writer.finish()
    assert not list(tmp_path.iterdir())
    assert table[0, 0] == 1


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_table_without_rows_still_has_its_columns(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES_IN_MEMORY", limit)
    assert RowWriter(3, 5).finish().shape == (0, 3)


def test_fewer_rows_than_expected_make_a_smaller_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES_IN_MEMORY", 0)
    writer = RowWriter(2, 5)
    writer.append(np.ones((3, 2)))
    assert writer.finish().shape == (3, 2)


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (7,)])
def test_numpy_reads_arrays_written_in_chunks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 24)
    table = np.random.default_rng(0).random(shape).astype(np.float32)
    write_npy(tmp_path / "a.npy", table)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), table)
    np.testing.assert_array_equal(map_npy(tmp_path / "a.npy"), table)


def test_npy_files_of_python_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        map_npy(tmp_path / "a.npy")


def test_npy_files_are_read_from_another_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(files._MOUNTED, "arrays", Memory())
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    files.make_folder("arrays://x")
    files.write("arrays://x/a.npy", buffer.getvalue())
    assert map_npy("arrays://x/a.npy").tolist() == [0, 1, 2]
