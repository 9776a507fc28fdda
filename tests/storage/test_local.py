from __future__ import annotations

from pathlib import Path

import pytest

from model_trainer.errors import StorageError
from model_trainer.storage.files import atomic_write, write_text
from model_trainer.storage.folders import make_run_dir


def test_a_failed_atomic_write_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def write_half() -> None:
        with atomic_write(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_does_not_exist_before_it_is_complete(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.hdf5") as partial:
        partial.write_bytes(b"1")
        assert not (tmp_path / "a.hdf5").exists()
        assert partial.suffix == ".hdf5"
    assert (tmp_path / "a.hdf5").read_bytes() == b"1"


def test_a_run_folder_whose_name_exists_gets_a_suffix(tmp_path: Path) -> None:
    names = [make_run_dir(tmp_path / "output", "run").name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]


def test_an_output_path_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("")
    with pytest.raises(StorageError, match="output"):
        make_run_dir(tmp_path / "output", "run")


def test_a_missing_folder_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/a\.txt could not be written"):
        write_text(tmp_path / "nowhere" / "a.txt", "text")
