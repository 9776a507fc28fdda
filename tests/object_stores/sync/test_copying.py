"""`sync` makes the contents of two folders equal, as boto3 and the file system see them."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

from model_trainer import ImageFolder
from model_trainer.errors import ConfigError
from model_trainer.storage.sync.listing import Entry
from model_trainer.storage.sync.transfer import Work
from model_trainer.storage.sync.upload import Upload
from tests.object_stores.conftest import Weed
from tests.object_stores.sync.conftest import body, client_of, keys, put, synchronize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with names that a URL or a shell would change, an empty file and an empty folder."""
    root = tmp_path / "here"
    for name, content in (
        ("a/one.txt", b"1"),
        ("a b/f\u00fcnf #%?&+*[5].txt", b"5"),
        ("a b/e\u0301.txt", b"e"),
        ("zero", b""),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty" / "inner").mkdir(parents=True)
    return root


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(each.relative_to(folder)): each.read_bytes() if each.is_file() else None for each in folder.rglob("*")}


def test_a_folder_is_unchanged_after_upload_and_download(bucket: str, folder: Path, tmp_path: Path) -> None:
    synchronize(folder, f"{bucket}/copy")
    synchronize(f"{bucket}/copy", tmp_path / "there")
    assert tree(tmp_path / "there") == tree(folder)


def test_keys_are_the_relative_paths_of_the_files(bucket: str, s3: Weed, folder: Path) -> None:
    synchronize(folder, f"{bucket}/copy")
    files = {f"copy/{each.relative_to(folder)}" for each in folder.rglob("*") if each.is_file()}
    assert set(keys(s3, bucket)) == files | {"copy/empty/inner/.folder"}


@pytest.mark.parametrize("direction", ["up", "down", "between"])
def test_a_second_synchronization_copies_nothing(bucket: str, folder: Path, tmp_path: Path, direction: str) -> None:
    synchronize(folder, f"{bucket}/copy")
    source = folder if direction == "up" else f"{bucket}/copy"
    target = {"up": f"{bucket}/copy", "down": tmp_path / "there", "between": f"{bucket}/other"}[direction]
    synchronize(source, target)
    again = synchronize(source, target)
    assert (again.num_copied, again.num_equal, again.num_moved) == (0, 4, 0)


def names_in(folder: str) -> list[str]:
    examples = ImageFolder(folder).read()
    return [examples.name(row).removeprefix(f"{folder}/") for row in range(len(examples))]


def test_image_folders_see_synchronized_files_at_once(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "here" / "cat").mkdir(parents=True)
    (tmp_path / "here" / "cat" / "1.jpg").write_bytes(b"1")
    synchronize(tmp_path / "here", f"{bucket}/train")
    assert names_in(f"{bucket}/train") == ["cat/1.jpg"]
    (tmp_path / "here" / "cat" / "2.jpg").write_bytes(b"2")
    (tmp_path / "here" / "cat" / "1.jpg").unlink()
    synchronize(tmp_path / "here", f"{bucket}/train", delete=True)
    assert names_in(f"{bucket}/train") == ["cat/2.jpg"]


def test_a_file_that_was_only_touched_is_not_copied(bucket: str, folder: Path) -> None:
    synchronize(folder, bucket)
    os.utime(folder / "a" / "one.txt", (4e9, 4e9))
    assert synchronize(folder, bucket).num_copied == 0


def test_a_newer_file_with_another_content_is_copied(bucket: str, s3: Weed, folder: Path) -> None:
    synchronize(folder, bucket)
    (folder / "a" / "one.txt").write_bytes(b"2")
    os.utime(folder / "a" / "one.txt", (4e9, 4e9))
    assert synchronize(folder, bucket).num_copied == 1
    assert body(s3, bucket, "a/one.txt") == b"2"


def test_a_changed_downloaded_file_is_copied_again(bucket: str, folder: Path, tmp_path: Path) -> None:
    synchronize(folder, bucket)
    synchronize(bucket, tmp_path / "there")
    (tmp_path / "there" / "zero").write_bytes(b"0")
    (tmp_path / "there" / "a" / "one.txt").write_bytes(b"2")
    os.utime(tmp_path / "there" / "a" / "one.txt", (4e9, 4e9))
    assert synchronize(bucket, tmp_path / "there").num_copied == 2
    assert tree(tmp_path / "there") == tree(folder)


def test_a_change_with_the_same_size_and_an_older_time_is_found_only_by_checksum(bucket: str, folder: Path) -> None:
    synchronize(folder, bucket)
    (folder / "a" / "one.txt").write_bytes(b"2")
    os.utime(folder / "a" / "one.txt", (1, 1))
    assert synchronize(folder, bucket).num_copied == 0
    assert synchronize(folder, bucket, checksum=True).num_copied == 1


def test_a_downloaded_file_has_the_time_of_its_object(bucket: str, s3: Weed, folder: Path, tmp_path: Path) -> None:
    synchronize(folder, bucket)
    synchronize(bucket, tmp_path / "there")
    head = client_of(s3).head_object(Bucket=bucket.removeprefix("s3://"), Key="zero")
    assert (tmp_path / "there" / "zero").stat().st_mtime == head["LastModified"].timestamp()


def test_a_dry_run_lists_changes_without_making_them(bucket: str, s3: Weed, folder: Path) -> None:
    put(s3, bucket, "old", b"")
    planned = synchronize(folder, bucket, dry_run=True, delete=True)
    assert planned.changes == [
        "copy a b/e\u0301.txt", "copy a b/f\u00fcnf #%?&+*[5].txt", "copy a/one.txt", "copy empty/inner/", "copy zero",
        "delete old",
    ]  # fmt: skip
    assert list(keys(s3, bucket)) == ["old"]


def test_delete_removes_files_and_folders_missing_in_the_source(
    bucket: str, s3: Weed, folder: Path, tmp_path: Path
) -> None:
    synchronize(folder, bucket)
    synchronize(bucket, tmp_path / "there")
    (folder / "a" / "one.txt").unlink()
    (folder / "a").rmdir()
    (folder / "empty" / "inner").rmdir()
    (folder / "empty" / "file").write_bytes(b"")
    assert synchronize(folder, bucket, delete=True).num_deleted == 2
    assert synchronize(bucket, tmp_path / "there", delete=True).num_deleted == 2
    assert tree(tmp_path / "there") == tree(folder)


def test_nothing_is_deleted_unless_asked(bucket: str, s3: Weed, folder: Path) -> None:
    put(s3, bucket, "old", b"old")
    synchronize(folder, bucket)
    assert body(s3, bucket, "old") == b"old"


def test_delete_with_an_empty_source_is_refused(bucket: str, s3: Weed, tmp_path: Path) -> None:
    put(s3, bucket, "precious", b"1")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="nothing is empty, and --delete would delete all 1 files of s3://"):
        synchronize(tmp_path / "nothing", bucket, delete=True)
    assert body(s3, bucket, "precious") == b"1"


def test_a_file_that_cannot_be_read_is_listed_and_the_others_are_copied(bucket: str, s3: Weed, folder: Path) -> None:
    put(s3, bucket, "old", b"")
    (folder / "broken").symlink_to("missing")
    done = synchronize(folder, bucket, delete=True)
    assert done.failures == [("broken", "No such file or directory")]
    assert done.num_copied == 4
    assert done.has_kept
    assert "old" in keys(s3, bucket)


def test_an_object_that_cannot_be_a_file_is_listed_and_the_others_are_copied(
    bucket: str, s3: Weed, tmp_path: Path
) -> None:
    put(s3, bucket, "a", b"1")
    put(s3, bucket, "a/b", b"2")
    put(s3, bucket, "c", b"3")
    done = synchronize(bucket, tmp_path / "there")
    assert len(done.failures) == 1
    assert done.failures[0][0] in ("a", "a/b")
    assert (tmp_path / "there" / "c").read_bytes() == b"3"


def test_locks_and_partial_files_are_not_copied(bucket: str, s3: Weed, folder: Path) -> None:
    for name in (".lock", ".folder", ".x.partial-12.keras", f".{'a' * 32}.partial"):
        (folder / "a" / name).write_bytes(b"")
    put(s3, bucket, "copy/.lock", b"held")
    synchronize(folder, f"{bucket}/copy", delete=True)
    assert body(s3, bucket, "copy/.lock") == b"held"
    assert [key for key in keys(s3, bucket) if key.startswith("copy/a/")] == ["copy/a/one.txt"]


def test_folder_markers_of_other_programs_become_folders(bucket: str, s3: Weed, tmp_path: Path) -> None:
    put(s3, bucket, "marked/", b"")
    put(s3, bucket, "marked/inner/", b"")
    put(s3, bucket, "marked/file", b"1")
    synchronize(bucket, tmp_path / "there")
    assert tree(tmp_path / "there") == {"marked": None, "marked/inner": None, "marked/file": b"1"}


@pytest.mark.parametrize("direction", ["up", "down", "between"])
def test_folder_markers_of_other_programs_are_equal_the_second_time(
    bucket: str, s3: Weed, tmp_path: Path, direction: str
) -> None:
    (tmp_path / "here" / "marked").mkdir(parents=True)
    (tmp_path / "here" / "full").mkdir()
    (tmp_path / "here" / "full" / "file").write_bytes(b"1")
    (tmp_path / "here" / "zero").write_bytes(b"")
    for key in ("m/", "m/marked/", "m/full/", "m/full/file", "m/zero", "m/old/"):
        put(s3, bucket, key, b"1" if key.endswith("file") else b"")
    source = tmp_path / "here" if direction == "up" else f"{bucket}/m"
    target = {"up": f"{bucket}/m", "down": tmp_path / "there", "between": f"{bucket}/other"}[direction]
    synchronize(source, target, delete=True)
    again = synchronize(source, target, delete=True, dry_run=True)
    assert (again.changes, again.num_equal, again.failures) == ([], 2, [])
    assert ("m/old/" in keys(s3, bucket)) == (direction != "up")


def test_a_file_and_an_empty_folder_replace_each_other_in_a_store(bucket: str, s3: Weed, folder: Path) -> None:
    put(s3, bucket, "empty/inner", b"1")
    put(s3, bucket, "zero/.folder", b"")
    synchronize(folder, bucket, delete=True)
    again = synchronize(folder, bucket, delete=True)
    assert (again.num_copied, again.num_deleted, again.failures) == (0, 0, [])
    assert {"empty/inner/.folder", "zero"} <= set(keys(s3, bucket))
    assert not {"empty/inner", "zero/.folder"} & set(keys(s3, bucket))


def test_objects_are_copied_within_and_between_buckets(bucket: str, s3: Weed, folder: Path, tmp_path: Path) -> None:
    client_of(s3).create_bucket(Bucket=f"{bucket[5:]}-other")
    synchronize(folder, f"{bucket}/copy")
    synchronize(f"{bucket}/copy", f"{bucket}/again")
    synchronize(f"{bucket}/again", f"{bucket}-other")
    assert keys(s3, f"{bucket}-other") == {
        key.removeprefix("copy/"): etag for key, etag in keys(s3, bucket).items() if key.startswith("copy/")
    }


@pytest.mark.long
def test_large_files_use_multipart_uploads_and_ranged_downloads(bucket: str, s3: Weed, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    content = os.urandom(1 << 20) * 17
    (tmp_path / "here" / "large").write_bytes(content)
    client_of(s3).create_bucket(Bucket=f"{bucket[5:]}-other")
    synchronize(tmp_path / "here", bucket)
    assert keys(s3, bucket)["large"].endswith('-2"')
    synchronize(bucket, f"{bucket}-other")
    down = synchronize(f"{bucket}-other", tmp_path / "there")
    assert down.num_moved == len(content)
    assert filecmp.cmp(tmp_path / "here" / "large", tmp_path / "there" / "large", shallow=False)
    assert os.listdir(tmp_path / "there") == ["large"]
    assert synchronize(tmp_path / "there", bucket, checksum=True).num_copied == 0


def test_links_to_folders_are_followed_once(bucket: str, s3: Weed, folder: Path) -> None:
    (folder / "a" / "up").symlink_to("..")
    (folder / "z").symlink_to("a b")
    done = synchronize(folder, bucket)
    assert done.failures == [("a/up", "It is a link to a folder that contains it")]
    assert "z/e\u0301.txt" in keys(s3, bucket)


def test_a_name_that_is_not_utf_8_is_listed(bucket: str, folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    assert synchronize(folder, bucket).failures == [("caf\udce9", "Its name is not UTF-8, which a key has to be")]


def test_the_manifest_of_a_run_is_copied_last(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", "manifest.json", "z.txt"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text(name)
    copied: list[str] = []
    original = Upload.copy

    def copy(self: Upload, entry: Entry, work: Work) -> None:
        original(self, entry, work)
        copied.append(entry.name)

    monkeypatch.setattr(Upload, "copy", copy)
    synchronize(tmp_path / "run", f"{bucket}/run")
    assert copied[-1] == "manifest.json"
    assert set(copied) == {"a.txt", "manifest.json", "z.txt"}
