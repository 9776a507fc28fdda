"""Temporary files of `sync`: files and links of others with their names are neither written to nor followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_trainer.storage.sync.partial import PartialFile, delete_partial_files
from tests.object_stores.sync.conftest import PARTIAL


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe"])
def test_a_foreign_file_with_the_temporary_name_is_not_written_to(there: Path, outside: Path, kind: str) -> None:
    partial = PartialFile(str(there / "a.txt"))
    if kind == "symlink":
        os.symlink(outside / "precious.txt", partial._partial)
    elif kind == "hard link":
        os.link(outside / "precious.txt", partial._partial)
    else:
        os.mkfifo(partial._partial)
    with partial:
        partial.write(b"a")
        partial.finish(0)
    assert (there / "a.txt").read_bytes() == b"a"
    assert not (there / "a.txt").is_symlink()
    assert (outside / "precious.txt").read_bytes() == b"precious"


def test_a_link_with_a_temporary_name_is_deleted_as_a_link(there: Path, outside: Path) -> None:
    (there / PARTIAL).symlink_to(outside / "precious.txt")
    delete_partial_files([str(there / PARTIAL)])
    assert os.listdir(there) == []
    assert (outside / "precious.txt").exists()
