"""Symbolic links, names and leftovers in a local target of `sync`: nothing outside the target is changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.object_stores.conftest import Weed
from tests.object_stores.sync.conftest import PARTIAL, put, synchronize

LINK = "sub is a link in the target, and nothing is written through it; replace it by a folder"


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_written_or_deleted_through_a_linked_folder(
    bucket: str, s3: Weed, there: Path, outside: Path, dry_run: bool
) -> None:
    put(s3, bucket, "a.txt", b"a")
    put(s3, bucket, "sub/b.txt", b"b")
    (there / "sub").symlink_to(outside)
    done = synchronize(bucket, there, delete=True, dry_run=dry_run)
    assert done.failures == [("sub/b.txt", LINK)]
    assert set(os.listdir(outside)) == {"precious.txt", PARTIAL}
    assert (there / "a.txt").exists() != dry_run


def test_a_link_that_appears_after_the_listing_is_not_followed(
    bucket: str, s3: Weed, there: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, bucket, "sub/b.txt", b"b")
    monkeypatch.setattr(
        "model_trainer.storage.sync.sync.Obstacles.of", lambda self, entry: (there / "sub").symlink_to(outside)
    )
    assert synchronize(bucket, there).failures == [("sub/b.txt", LINK)]
    assert set(os.listdir(outside)) == {"precious.txt", PARTIAL}


def test_temporary_files_behind_a_link_are_not_deleted(bucket: str, s3: Weed, there: Path, outside: Path) -> None:
    put(s3, bucket, "a.txt", b"a")
    (there / "other").symlink_to(outside)
    assert synchronize(bucket, there).failures == []
    assert set(os.listdir(outside)) == {"precious.txt", PARTIAL}


def test_a_link_that_the_source_does_not_have_is_deleted_as_a_link(
    bucket: str, s3: Weed, there: Path, outside: Path
) -> None:
    put(s3, bucket, "a.txt", b"a")
    (there / "other").symlink_to(outside)
    assert synchronize(bucket, there, delete=True).num_deleted == 1
    assert os.listdir(there) == ["a.txt"]
    assert set(os.listdir(outside)) == {"precious.txt", PARTIAL}


def test_a_link_to_a_file_is_replaced_by_the_file(bucket: str, s3: Weed, there: Path, outside: Path) -> None:
    put(s3, bucket, "a.txt", b"a")
    (there / "a.txt").symlink_to(outside / "precious.txt")
    synchronize(bucket, there)
    assert (there / "a.txt").read_bytes() == b"a"
    assert (outside / "precious.txt").read_bytes() == b"precious"


def test_a_link_to_an_equal_file_does_not_change_the_time_of_that_file(
    bucket: str, s3: Weed, there: Path, outside: Path
) -> None:
    put(s3, bucket, "a.txt", b"precious")
    (there / "a.txt").symlink_to(outside / "precious.txt")
    os.utime(outside / "precious.txt", (1, 1))
    assert synchronize(bucket, there).num_equal == 1
    assert (outside / "precious.txt").stat().st_mtime == 1


def test_the_target_itself_may_be_a_link(bucket: str, s3: Weed, tmp_path: Path, there: Path) -> None:
    put(s3, bucket, "sub/b.txt", b"b")
    (tmp_path / "link").symlink_to(there)
    synchronize(bucket, tmp_path / "link")
    assert (there / "sub" / "b.txt").read_bytes() == b"b"
    assert synchronize(bucket, f"{tmp_path}/link/").num_equal == 1


def test_a_file_becomes_a_folder_only_with_delete(bucket: str, s3: Weed, there: Path) -> None:
    put(s3, bucket, "sub/b.txt", b"b")
    put(s3, bucket, "c.txt", b"c")
    (there / "sub").write_bytes(b"file")
    done = synchronize(bucket, there)
    assert done.failures == [("sub/b.txt", "sub is a file in the target; --delete replaces it")]
    planned = synchronize(bucket, there, delete=True, dry_run=True)
    assert planned.changes == ["copy sub/b.txt", "delete sub"]
    done = synchronize(bucket, there, delete=True)
    assert (done.failures, done.num_copied, done.num_deleted) == ([], 1, 1)
    assert (there / "sub" / "b.txt").read_bytes() == b"b"
    assert synchronize(bucket, there, delete=True).num_equal == 2


def test_a_folder_becomes_a_file_only_with_delete(bucket: str, s3: Weed, there: Path) -> None:
    put(s3, bucket, "sub", b"file")
    (there / "sub" / "inner" / "empty").mkdir(parents=True)
    (there / "sub" / "b.txt").write_bytes(b"b")
    done = synchronize(bucket, there)
    assert done.failures == [("sub", "sub is a folder in the target; --delete replaces it")]
    done = synchronize(bucket, there, delete=True)
    assert (done.failures, done.num_copied, done.num_deleted) == ([], 1, 2)
    assert (there / "sub").read_bytes() == b"file"
    assert synchronize(bucket, there, delete=True).num_equal == 1


def test_nothing_is_deleted_while_another_file_cannot_be_copied(
    bucket: str, s3: Weed, there: Path, outside: Path
) -> None:
    put(s3, bucket, "sub/b.txt", b"b")
    put(s3, bucket, "file/c.txt", b"c")
    (there / "sub").symlink_to(outside)
    (there / "file").write_bytes(b"file")
    done = synchronize(bucket, there, delete=True)
    assert [name for name, _ in done.failures] == ["sub/b.txt", "file/c.txt"]
    assert (there / "file").read_bytes() == b"file"


def test_folders_that_the_source_has_are_not_deleted(bucket: str, s3: Weed, there: Path) -> None:
    put(s3, bucket, "filled/b.txt", b"b")
    put(s3, bucket, "emptied/.folder", b"")
    (there / "filled").mkdir()
    (there / "emptied").mkdir()
    (there / "emptied" / "old").write_bytes(b"")
    done = synchronize(bucket, there, delete=True)
    assert (done.failures, done.num_deleted) == ([], 1)
    assert set(os.listdir(there)) == {"filled", "emptied"}


def test_objects_named_like_temporary_files_are_not_copied(bucket: str, s3: Weed, there: Path) -> None:
    for key in (PARTIAL, ".foo.partial", "a/.x.partial/b", "a/.lock", "c"):
        put(s3, bucket, key, b"1")
    assert synchronize(bucket, there).num_copied == 1
    assert os.listdir(there) == ["c"]
