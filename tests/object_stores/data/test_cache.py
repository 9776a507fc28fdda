"""The cache of objects on the local disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_trainer import ImageFolder
from model_trainer.cli.main import app
from model_trainer.storage import cached, files
from model_trainer.storage.objects import cache as module
from model_trainer.storage.objects.cache import ObjectCache
from model_trainer.storage.objects.errors import ChangedError

SIZE = 1000


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "cache", 1_000_000)


def files_in(cache: ObjectCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def make_old(cache: ObjectCache) -> None:
    for path in files_in(cache):
        os.utime(path, (1000, 1000))


def test_what_was_put_is_read_by_another_process(cache: ObjectCache) -> None:
    cache.put("a", b"content")
    program = (
        f"from pathlib import Path; from model_trainer.storage.objects.cache import ObjectCache; "
        f"print(ObjectCache(Path({str(cache.folder)!r}), 10).get('a'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "b'content'\n"
    assert cache.get("b") is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"X" + data[1:], lambda data: b""])
def test_a_damaged_entry_is_not_used(cache: ObjectCache, damage: Callable[[bytes], bytes]) -> None:
    cache.put("a", b"content")
    (path,) = files_in(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("a") is None
    assert not files_in(cache)


def test_a_process_that_is_killed_while_it_writes_leaves_no_entry(
    cache: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def replace(source: str, target: str) -> None:
        raise Killed

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        cache.put("a", b"content")
    assert cache.get("a") is None
    assert cache.usage() == (0, 0)
    make_old(cache)
    cache.usage()
    assert not files_in(cache)


def test_entries_that_were_used_longest_ago_make_room_for_new_ones(tmp_path: Path) -> None:
    before = ObjectCache(tmp_path / "cache", 10 * SIZE)
    for number in range(9):
        before.put(str(number), bytes(SIZE - 16))
    make_old(before)
    cache = ObjectCache(tmp_path / "cache", 10 * SIZE)
    assert cache.get("3") is not None
    for number in range(100, 105):
        cache.put(str(number), bytes(SIZE - 16))
    assert cache.usage()[1] <= 10 * SIZE
    assert all(cache.get(str(number)) is not None for number in (3, *range(100, 105)))


def test_entries_of_this_process_are_not_exchanged_for_one_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ObjectCache(tmp_path / "cache", 10 * SIZE)
    with caplog.at_level("INFO", logger="absl"):
        for number in range(30):
            cache.put(str(number), bytes(SIZE - 16))
    assert [number for number in range(30) if cache.get(str(number)) is not None] == list(range(10))
    assert len([record for record in caplog.records if "is full of images of this run" in record.getMessage()]) == 1


def test_a_full_disk_is_logged_once_and_nothing_else_happens(
    cache: ObjectCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(partial: str, content: bytes) -> None:
        Path(partial).touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache.put("kept", b"before")
    monkeypatch.setattr(cache, "_write", write)
    for key in "abc":
        cache.put(key, b"content")
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Objects are no longer kept in {cache.folder}: No space left on device. "
        "They are read from the store each time."
    )
    assert cache.get("kept") == b"before"
    assert len(files_in(cache)) == 1


def test_the_last_gigabyte_of_a_disk_is_left_for_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = module._FREE_BYTES + 5 * SIZE
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    cache = ObjectCache(tmp_path / "cache", 1_000_000)
    for number in range(10):
        cache.put(str(number), bytes(SIZE - 16))
    assert cache.usage() == (5, 5 * SIZE)


def test_a_size_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", 0)
    cache.put("a", b"content")
    assert not cache.folder.exists()


def test_an_object_is_downloaded_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(f"{bucket}/a.jpg", b"first")
    content, tag = cached.read_version(f"{bucket}/a.jpg")
    files.delete(f"{bucket}/a.jpg")
    assert cached.read_version(f"{bucket}/a.jpg", tag) == (content, tag) == (b"first", tag)


def test_another_version_of_an_object_is_never_taken_for_the_first(bucket: str, configure: Callable[..., None]) -> None:
    configure(cache_bytes=0)
    files.write(f"{bucket}/a.jpg", b"first")
    tag = cached.read_version(f"{bucket}/a.jpg")[1]
    files.write(f"{bucket}/a.jpg", b"second")
    with pytest.raises(ChangedError, match=rf"{bucket}/a.jpg: the object has been changed meanwhile"):
        cached.read_version(f"{bucket}/a.jpg", tag)
    with pytest.raises(ChangedError):
        cached.read_range_version(f"{bucket}/a.jpg", 0, 2, tag)
    assert cached.read_version(f"{bucket}/a.jpg")[0] == b"second"


def test_the_command_shows_and_clears_what_is_kept(bucket: str) -> None:
    for number in range(3):
        files.write(f"{bucket}/train/cat/{number}.jpg", bytes(SIZE))
    examples = ImageFolder(f"{bucket}/train").read()
    assert [len(examples.images.read(row)) for row in range(3)] == [SIZE] * 3
    run = partial(CliRunner().invoke, app)
    shown = json.loads(run(["cache", "--json"]).stdout)
    assert shown["count"] == 3
    assert shown["num_bytes"] >= 3 * SIZE
    assert "3 images and ranges" in run(["cache", "--clear"]).stdout
    assert json.loads(run(["cache", "--json"]).stdout)["count"] == 0
    files.delete(f"{bucket}/train/cat/1.jpg")
    assert len(ImageFolder(f"{bucket}/train").read()) == 2  # listings too
