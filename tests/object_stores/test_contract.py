"""An object store on a real server passes the tests of all storages in tests/storage/test_storages.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_trainer.storage import files
from model_trainer.storage.files import as_path
from tests.object_stores.conftest import Weed
from tests.storage.test_storages import (  # collected here too, with the fixture `folder` of this module
    test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one,
    test_a_file_can_be_read_as_a_whole_and_in_byte_ranges,
    test_a_folder_is_visible_only_when_it_is_complete,
    test_folders_are_created_listed_and_deleted_recursively,
    test_folders_named_like_checkpoints_are_neither_read_nor_deleted,
    test_lines_can_be_appended_to_a_file_and_a_copy_is_independent,
    test_runs_of_the_same_name_get_different_folders,
    test_text_is_utf_8_with_universal_newlines,
    test_the_two_newest_checkpoints_are_kept_and_a_damaged_one_is_not_read,
    test_wildcards_do_not_match_slashes,
)

__all__ = [
    "test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one",
    "test_a_file_can_be_read_as_a_whole_and_in_byte_ranges",
    "test_a_folder_is_visible_only_when_it_is_complete",
    "test_folders_are_created_listed_and_deleted_recursively",
    "test_folders_named_like_checkpoints_are_neither_read_nor_deleted",
    "test_lines_can_be_appended_to_a_file_and_a_copy_is_independent",
    "test_runs_of_the_same_name_get_different_folders",
    "test_text_is_utf_8_with_universal_newlines",
    "test_the_two_newest_checkpoints_are_kept_and_a_damaged_one_is_not_read",
    "test_wildcards_do_not_match_slashes",
]


@pytest.fixture
def folder(bucket: str) -> Path:
    folder = as_path(f"{bucket}/folder")
    files.make_folder(folder)
    return folder


def test_only_one_of_several_threads_creates_a_new_folder(folder: Path) -> None:
    def make(_: int) -> bool:
        try:
            files.make_folder(folder / "run", new=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(make, range(8))) == 1


def test_a_folder_with_the_marker_of_another_program_is_deleted(folder: Path, s3: Weed) -> None:
    marked = folder / "marked"
    name = str(folder).split("/")[2]
    s3.client().put_object(Bucket=name, Key="folder/marked/", Body=b"")
    files.write(marked / "a", b"1")
    assert files.names_in(marked) == ["a"]
    files.delete_folder(marked)
    keys = [each["Key"] for each in s3.client().list_objects_v2(Bucket=name)["Contents"]]
    assert keys == ["folder/.folder"]


def test_missing_paths_are_reported(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(folder / "none")
    with pytest.raises(IsADirectoryError):
        files.read(folder)
    with pytest.raises(FileNotFoundError):
        files.scan(folder / "none")
    assert files.names_in(folder / "none") == []
    files.delete(folder / "none")
    files.delete_folder(folder / "none")
    files.write(folder / "file", b"")
    with pytest.raises(FileExistsError):
        files.make_folder(folder / "file")
    with pytest.raises(FileNotFoundError):
        files.make_folder(folder / "gone" / "a", parents=False)
    assert files.names_in(folder) == ["file"]


def test_writing_an_object_needs_no_existing_folders(folder: Path) -> None:
    files.write(folder / "new" / "deep" / "a.txt", b"1")
    assert files.names_in(folder / "new") == ["deep"]
    files.delete(folder / "new" / "deep" / "a.txt")
    assert not files.exists(folder / "new")


def test_a_bucket_is_a_folder(bucket: str) -> None:
    files.write(f"{bucket}/a/1.txt", b"")
    assert files.is_folder(bucket)
    assert files.is_folder(f"{bucket}/")
    assert files.names_in(bucket) == ["a"]
    assert files.matching(f"{bucket}/*/*.txt") == [f"{bucket}/a/1.txt"]


def test_a_whole_bucket_is_not_deleted(bucket: str) -> None:
    files.write(f"{bucket}/a", b"")
    with pytest.raises(OSError, match="deleting a whole bucket is not supported"):
        files.delete_folder(bucket)
    assert files.names_in(bucket) == ["a"]


def test_a_file_is_copied_from_a_disk_to_a_store_and_back(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    files.copy(tmp_path / "a", f"{bucket}/b")
    files.copy(f"{bucket}/b", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"1"
