"""The behavior that all storages have in common; tests/object_stores/test_contract.py runs part of it on S3."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model_trainer import Run
from model_trainer.errors import StorageError
from model_trainer.storage import files
from model_trainer.storage.files import RemotePath, as_path
from model_trainer.storage.folders import make_run_dir, only_process
from model_trainer.storage.lines import LineFile
from model_trainer.storage.memory import Memory
from model_trainer.training.checkpoints.store import Checkpoint, checkpoints_in, read_newest, write_checkpoint

pytestmark = pytest.mark.usefixtures("short_pipeline")

MakeRun = Callable[..., Run]

SCHEMES = map("memory{}".format, itertools.count())


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in a new in-memory storage."""
    scheme = next(SCHEMES)
    monkeypatch.setitem(files._MOUNTED, scheme, Memory())
    folder = as_path(f"{scheme}://box")
    files.make_folder(folder)
    return folder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    return tmp_path if request.param == "local" else request.getfixturevalue("memory")


def test_a_file_can_be_read_as_a_whole_and_in_byte_ranges(folder: Path) -> None:
    path = folder / "a.bin"
    assert not files.exists(path)
    files.write(path, [b"abc", memoryview(b"defg")])
    assert files.read(path) == b"abcdefg"
    assert files.read_range(path, 2, 3) == b"cde"
    with pytest.raises(OSError, match="ends before byte 10"):
        files.read_range(path, 2, 8)
    with files.open_file(path) as file:
        file.seek(5)
        assert file.read() == b"fg"
    info = files.info(path)
    assert info is not None
    assert (info.is_folder, info.size) == (False, 7)
    assert files.is_file(path)
    assert not files.is_folder(path)
    with files.local_copy(path) as local:
        assert local.name == "a.bin"
        assert local.read_bytes() == b"abcdefg"
    files.write(path, b"other")
    assert files.read(path) == b"other"


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one(folder: Path) -> None:
    files.write_text(folder / "a.txt", "old")

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        files.write(folder / "a.txt", broken())

    def write_half(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"), files.atomic_write(folder / "a.txt") as partial:
        write_half(partial)
    assert files.names_in(folder) == ["a.txt"]
    assert files.read_text(folder / "a.txt") == "old"


def test_text_is_utf_8_with_universal_newlines(folder: Path) -> None:
    files.write_text(folder / "a.txt", "größe\r\n2\n")
    assert files.read_text(folder / "a.txt") == "größe\n2\n"
    with files.open_text(folder / "a.txt", newline="") as file:
        assert file.readlines() == ["größe\r\n", "2\n"]
    files.write(folder / "a.txt", b"\xff")
    with pytest.raises(UnicodeDecodeError):
        files.read_text(folder / "a.txt")


def test_missing_paths_and_wrong_kinds_are_reported(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(folder / "none")
    with pytest.raises(IsADirectoryError):
        files.read(folder)
    with pytest.raises(StorageError, match=r"nowhere/a.txt could not be written: No such file or directory"):
        files.write(folder / "nowhere" / "a.txt", b"")
    assert files.names_in(folder / "none") == []
    files.delete(folder / "none")
    files.write(folder / "file", b"")
    with pytest.raises(FileExistsError):
        files.make_folder(folder / "file")
    with pytest.raises(NotADirectoryError):
        files.make_folder(folder / "file" / "b" / "c")
    assert files.names_in(folder) == ["file"]
    with pytest.raises(FileNotFoundError):
        files.make_folder(folder / "gone" / "a", parents=False)
    assert files.names_in(folder) == ["file"]


def test_folders_are_created_listed_and_deleted_recursively(folder: Path) -> None:
    files.make_folder(folder / "a" / "b")
    files.make_folder(folder / "a" / "b")
    with pytest.raises(FileExistsError):
        files.make_folder(folder / "a" / "b", new=True)
    files.write(folder / "a" / "1.txt", b"")
    files.write(folder / "a" / "b" / "2.txt", b"")
    entries = sorted((entry.name, entry.is_dir(), entry.path) for entry in files.scan(folder / "a"))
    assert entries == [("1.txt", False, str(folder / "a" / "1.txt")), ("b", True, str(folder / "a" / "b"))]
    assert files.is_folder(folder / "a")
    files.delete(folder / "a" / "1.txt")
    assert files.names_in(folder / "a") == ["b"]
    with pytest.raises(IsADirectoryError):
        files.delete(folder / "a")
    files.delete_folder(f"{folder}/a/")
    files.delete_folder(folder / "a")
    assert files.names_in(folder) == []


def test_wildcards_do_not_match_slashes(folder: Path) -> None:
    for name in ("a/1.rec", "a/2.rec", "b/1.rec", "b/1.txt", "b/c/1.rec", "b/[1].rec"):
        files.make_folder((folder / name).parent)
        files.write(folder / name, b"")

    def matching(pattern: str) -> list[str]:
        return [path.removeprefix(f"{folder}/") for path in files.matching(folder / pattern)]

    assert matching("*/1.rec") == ["a/1.rec", "b/1.rec"]
    assert matching("a/*.rec") == ["a/1.rec", "a/2.rec"]
    assert matching("?/[^1].rec") == ["a/2.rec"]
    assert matching("b/*") == ["b/1.rec", "b/1.txt", "b/[1].rec", "b/c"]
    assert matching("a/2.rec") == ["a/2.rec"]
    assert matching("none/*") == matching("a/none") == []


def test_lines_can_be_appended_to_a_file_and_a_copy_is_independent(folder: Path) -> None:
    lines = LineFile(folder / "log.txt")
    assert files.read(folder / "log.txt") == b""
    lines.write("one\n")
    lines.write("two\n")
    lines.close()
    files.append_text(folder / "log.txt", "three\n")
    files.copy(folder / "log.txt", folder / "kept.txt")
    files.write_text(folder / "log.txt", "new\n")
    assert files.read_text(folder / "kept.txt") == "one\ntwo\nthree\n"
    files.copy(folder / "log.txt", folder / "kept.txt")
    assert files.read_text(folder / "kept.txt") == "new\n"


def test_a_folder_is_visible_only_when_it_is_complete(folder: Path) -> None:
    files.write_folder(folder / "epoch-1", [("a", [b"1"]), ("last", [b"2"])])
    assert files.names_in(folder / "epoch-1") == ["a", "last"]

    def broken() -> Iterator[tuple[str, list[bytes]]]:
        yield "a", [b"half"]
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        files.write_folder(folder / "epoch-2", broken())
    files.clear_leftovers(folder)
    assert "last" not in files.names_in(folder / "epoch-2")
    files.write_folder(folder / "epoch-1", [("last", [b"3"])])
    assert files.names_in(folder / "epoch-1") == ["last"]
    assert {name: os.fspath(path) for name, path in files.complete_folders(folder, "epoch-1").items()} == {
        "epoch-1": f"{folder}/epoch-1"
    }


def test_runs_of_the_same_name_get_different_folders(folder: Path) -> None:
    assert [make_run_dir(folder / "output", "run").name for _ in range(3)] == ["run", "run-2", "run-3"]
    with only_process(folder):
        assert files.is_folder(folder / "output" / "run-3")


def test_the_two_newest_checkpoints_are_kept_and_a_damaged_one_is_not_read(folder: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(7)}
    for epoch in (1, 2, 3):
        write_checkpoint(folder / "checkpoints", Checkpoint(epoch, 0, {"history": [epoch]}, arrays))
    assert [path.name for path in checkpoints_in(folder / "checkpoints")] == [
        "epoch-00002-step-0000000", "epoch-00003-step-0000000",
    ]  # fmt: skip
    newest = read_newest(folder / "checkpoints")
    assert newest is not None
    np.testing.assert_array_equal(newest.arrays["a"], arrays["a"])
    files.write(folder / "checkpoints" / "epoch-00003-step-0000000" / "arrays.bin", b"")
    before = read_newest(folder / "checkpoints")
    assert before is not None
    assert before.epoch == 2


def test_a_path_with_a_scheme_has_name_suffix_and_parent() -> None:
    path = as_path("memory://box") / "a" / "note.tar.gz"
    assert isinstance(path, RemotePath)
    assert str(path) == os.fspath(path) == "memory://box/a/note.tar.gz"
    assert (path.name, path.suffix, str(path.parent)) == ("note.tar.gz", ".gz", "memory://box/a")
    assert str(path.with_name("b")) == "memory://box/a/b"
    assert path == as_path("memory://box/a/note.tar.gz")
    assert str(as_path("memory://")) == str(as_path("memory://a.txt").parent) == "memory://"
    assert str(as_path("my-store+2://box/a").parent) == "my-store+2://box"
    assert str(as_path("file:///tmp/x") / "y") == "file:///tmp/x/y"
    with pytest.raises(ValueError, match="cannot be the scheme"):
        files.mount("a/b", Memory())
    assert isinstance(as_path("box/a"), Path)


def test_the_root_of_a_storage_is_a_folder(memory: Path) -> None:
    root = f"{str(memory).partition('://')[0]}://"
    files.write(f"{root}1.txt", b"")
    assert files.is_folder(root)
    assert files.names_in(root) == ["1.txt", "box"]
    assert files.matching(f"{root}*.txt") == [f"{root}1.txt"]
    assert files.matching(f"{root}b*") == [f"{root}box"]


def test_concurrent_runs_of_the_same_name_get_different_folders(folder: Path) -> None:
    def make(number: int) -> str:
        return make_run_dir(folder, f"run{number // 4}").name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(make, range(200)))
    assert len(set(names)) == 200


def test_a_file_is_copied_from_one_storage_to_another(memory: Path, tmp_path: Path) -> None:
    files.write(tmp_path / "a", b"1")
    files.copy(tmp_path / "a", memory / "b")
    files.copy(memory / "b", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"1"


def test_relative_patterns_give_the_same_names_as_in_older_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train-0.rec", "train-1.rec", ".train-2.rec", "sub/train-3.rec"):
        files.make_folder((tmp_path / name).parent)
        files.write(tmp_path / name, b"")
    (tmp_path / "train-gone.rec").symlink_to(tmp_path / "nowhere")  # listed, although reading it would raise an error
    monkeypatch.chdir(tmp_path)
    assert files.matching("train-*.rec") == ["./train-0.rec", "./train-1.rec", "./train-gone.rec"]
    assert files.matching("train-[01].rec") == ["./train-0.rec", "./train-1.rec"]
    assert files.matching("train-[^0].rec") == ["./train-1.rec"]
    assert files.matching("s*/train-3.rec") == ["./sub/train-3.rec"]
    assert files.matching("./*train-[12].rec") == ["./.train-2.rec", "./train-1.rec"]
    assert files.matching("sub/*") == ["sub/train-3.rec"]
    assert files.matching("train-0.rec") == ["train-0.rec"]


def test_folders_named_like_checkpoints_are_neither_read_nor_deleted(folder: Path) -> None:
    for name in ("epoch-00001-backup", "epoch-notes"):
        files.make_folder(folder / "checkpoints" / name)
    files.write(folder / "checkpoints" / "epoch-00001-step-0000009", b"a file")
    for epoch in (1, 2, 3):
        write_checkpoint(folder / "checkpoints", Checkpoint(epoch, 0, {}, {}))
    assert set(files.names_in(folder / "checkpoints")) > {
        "epoch-00001-backup",
        "epoch-notes",
        "epoch-00001-step-0000009",
    }
    assert [path.name[:11] for path in checkpoints_in(folder / "checkpoints")] == ["epoch-00002", "epoch-00003"]


def test_a_checkpoint_is_not_written_if_its_run_folder_is_missing(folder: Path) -> None:
    with pytest.raises(StorageError, match="could not be written: No such file or directory"):
        write_checkpoint(folder / "run" / "checkpoints", Checkpoint(1, 0, {}, {}))
    assert files.names_in(folder) == []
