"""The cache of downloaded objects on the local disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_trainer import ImageFolder
from model_trainer.cli.main import app
from model_trainer.sources.tfrecords.cache import load_cached, save_cached
from model_trainer.storage import cached, files
from model_trainer.storage.objects import cache as module
from model_trainer.storage.objects.cache import ObjectCache
from model_trainer.storage.objects.errors import ChangedError
from model_trainer.storage.objects.own_files import folder_of_objects

SIZE = 1000


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(folder_of_objects(tmp_path), 1_000_000)


def files_in(cache: ObjectCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"]


def make_old(cache: ObjectCache) -> None:
    for path in files_in(cache):
        os.utime(path, (1000, 1000))


def test_an_entry_is_read_by_another_process(cache: ObjectCache) -> None:
    cache.put("a", b"content")
    program = (
        "from model_trainer.storage.objects.cache import ObjectCache; "
        "from model_trainer.storage.objects.own_files import folder_of_objects; "
        f"print(ObjectCache(folder_of_objects({str(cache.folder.parent)!r}), 10).get('a'))"
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


def test_a_process_killed_while_writing_leaves_no_entry(cache: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_least_recently_used_entries_are_evicted(tmp_path: Path) -> None:
    before = ObjectCache(folder_of_objects(tmp_path), 10 * SIZE)
    for number in range(9):
        before.put(str(number), bytes(SIZE - 16))
    make_old(before)
    cache = ObjectCache(folder_of_objects(tmp_path), 10 * SIZE)
    assert cache.get("3") is not None
    for number in range(100, 105):
        cache.put(str(number), bytes(SIZE - 16))
    assert cache.usage()[1] <= 10 * SIZE
    assert all(cache.get(str(number)) is not None for number in (3, *range(100, 105)))


def test_a_full_cache_keeps_the_images_of_this_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ObjectCache(folder_of_objects(tmp_path), 10 * SIZE)
    with caplog.at_level("INFO", logger="absl"):
        for number in range(30):
            cache.put(str(number), bytes(SIZE - 16))
    assert [number for number in range(30) if cache.get(str(number)) is not None] == list(range(10))
    assert len([record for record in caplog.records if "is full of images of this run" in record.getMessage()]) == 1


def test_a_full_disk_is_logged_once_and_not_an_error(
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
        f"Objects are no longer cached in {cache.folder}: No space left on device. They are downloaded each time."
    )
    assert cache.get("kept") == b"before"
    assert len(files_in(cache)) == 1


def test_the_cache_leaves_the_last_gigabyte_of_a_disk_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = module._FREE_BYTES + 5 * SIZE
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    cache = ObjectCache(folder_of_objects(tmp_path), 1_000_000)
    for number in range(10):
        cache.put(str(number), bytes(SIZE - 16))
    assert cache.usage() == (5, 5 * SIZE)


def test_an_object_larger_than_the_cache_does_not_empty_it(tmp_path: Path) -> None:
    before = ObjectCache(folder_of_objects(tmp_path), 10 * SIZE)
    for number in range(9):
        before.put(str(number), bytes(SIZE - 16))
    make_old(before)
    ObjectCache(folder_of_objects(tmp_path), 10 * SIZE).put("large", bytes(11 * SIZE))
    assert before.usage() == (9, 9 * SIZE)


def test_several_processes_respect_the_limit_together(tmp_path: Path) -> None:
    caches = [ObjectCache(folder_of_objects(tmp_path), 40 * SIZE) for _ in range(4)]
    for number in range(40):
        for each, cache in enumerate(caches):
            cache.put(f"{each}-{number}", bytes(SIZE - 16))
    assert caches[0].usage()[1] <= 60 * SIZE


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_an_entry_that_is_not_a_regular_file_is_ignored(
    cache: ObjectCache, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cache.put("a", b"content")
    (path,) = files_in(cache)
    path.unlink()
    make(path)
    assert "a" not in cache
    assert cache.get("a") is None
    cache.put("a", b"content")
    cache.put("b", b"content")
    assert cache.get("b") == b"content"
    assert not caplog.records


def test_links_in_the_cache_are_not_followed(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / ("1" * 40)).write_bytes(bytes(9 * SIZE))
    os.utime(photos / ("1" * 40), (1000, 1000))
    cache = ObjectCache(folder_of_objects(tmp_path), 10 * SIZE)
    cache.put("first", b"content")
    names = {os.path.basename(os.path.dirname(path)) for path in files_in(cache)}
    free = next(name for name in ("00", "01") if name not in names)
    os.symlink(photos, cache.folder / free)
    for number in range(600):
        cache.put(str(number), bytes(SIZE // 60 - 16))
    cache.clear()
    assert os.listdir(photos) == ["1" * 40]


def test_a_folder_with_other_files_is_neither_used_nor_cleared(
    tmp_path: Path, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(cache_folder=str(tmp_path))
    foreign = [f"objects/ab/{'c' * 38}", f"objects/pack/{'c' * 40}", "listings/notes.txt", "index/words.npz"]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    cached.cache().put("a", b"content")
    cached.clear()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(foreign)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Objects are no longer cached in {tmp_path}/objects: it contains other files, which are not those of a cache. "
        "They are downloaded each time."
    )


def test_a_cache_is_tagged_and_an_untagged_one_of_an_earlier_version_is_accepted(cache: ObjectCache) -> None:
    cache.put("a", b"content")
    mark = cache.folder / "CACHEDIR.TAG"
    assert mark.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    mark.unlink()
    again = ObjectCache(folder_of_objects(cache.folder.parent), 1000)
    assert again.usage()[0] == 1
    again.put("b", b"content")
    assert mark.exists()
    again.clear()
    assert not cache.folder.exists()


def test_clearing_the_cache_leaves_other_files(cache: ObjectCache) -> None:
    cache.put("a", b"content")
    (cache.folder / "notes.txt").touch()
    cache.clear()
    assert {path.name for path in cache.folder.rglob("*")} == {"notes.txt", "CACHEDIR.TAG"}


class BusyLock:
    """A lock that is held until `release`, and records that a caller waits for it."""

    def __init__(self) -> None:
        self.is_wanted = threading.Event()
        self._lock = threading.Lock()
        self._lock.acquire()

    def acquire(self, timeout: float) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        self.is_wanted.set()
        return timeout > 0 and self._lock.acquire(timeout=60)

    def release(self) -> None:
        self._lock.release()


def test_an_entry_waits_for_a_moment_while_another_thread_is_counted(
    cache: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("first", b"content")
    lock = BusyLock()
    monkeypatch.setattr(cache, "_lock", lock)
    writer = threading.Thread(target=cache.put, args=("second", b"content"))
    writer.start()
    assert lock.is_wanted.wait(60)
    lock.release()
    writer.join()
    assert cache.usage()[0] == 2


def test_a_cache_of_size_zero_stores_nothing(tmp_path: Path) -> None:
    cache = ObjectCache(folder_of_objects(tmp_path), 0)
    cache.put("a", b"content")
    assert not cache.folder.exists()


def test_an_object_is_downloaded_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(f"{bucket}/a.jpg", b"first")
    content, etag = cached.read_version(f"{bucket}/a.jpg")
    files.delete(f"{bucket}/a.jpg")
    assert cached.read_version(f"{bucket}/a.jpg", etag) == (content, etag) == (b"first", etag)


def test_a_changed_object_is_never_read_as_the_earlier_version(bucket: str, configure: Callable[..., None]) -> None:
    configure(cache_bytes=0)
    files.write(f"{bucket}/a.jpg", b"first")
    etag = cached.read_version(f"{bucket}/a.jpg")[1]
    files.write(f"{bucket}/a.jpg", b"second")
    with pytest.raises(ChangedError, match=rf"{bucket}/a.jpg: the object has changed in the meantime"):
        cached.read_version(f"{bucket}/a.jpg", etag)
    with pytest.raises(ChangedError):
        cached.read_range_version(f"{bucket}/a.jpg", 0, 2, etag)
    assert cached.read_version(f"{bucket}/a.jpg")[0] == b"second"


def test_an_object_above_the_size_limit_is_not_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(f"{bucket}/a.jpg", bytes(SIZE))
    monkeypatch.setattr(cached, "MAX_FILE_BYTES", SIZE - 1)
    with pytest.raises(OSError, match="it has more than the limit of 999 bytes"):
        cached.read_version(f"{bucket}/a.jpg")


def test_the_cache_command_shows_and_clears_the_cache(bucket: str) -> None:
    for number in range(3):
        files.write(f"{bucket}/train/cat/{number}.jpg", bytes(SIZE))
    examples = ImageFolder(f"{bucket}/train").read()
    assert [len(examples.images.read(row)) for row in range(3)] == [SIZE] * 3
    run = partial(CliRunner().invoke, app)
    shown = json.loads(run(["cache", "--json"]).stdout)
    assert shown["count"] == 3
    assert shown["num_bytes"] >= 3 * SIZE
    assert run(["cache", "--clear"]).stdout == (
        f"{shown['folder']}: 3 images and ranges (3.0 kB of at most 20 GB) were cached; all deleted.\n"
    )
    assert json.loads(run(["cache", "--json"]).stdout)["count"] == 0
    files.delete(f"{bucket}/train/cat/1.jpg")
    assert len(ImageFolder(f"{bucket}/train").read()) == 2  # listings too


def test_clearing_deletes_the_indexes_of_record_files(tmp_path: Path, configure: Callable[..., None]) -> None:
    configure(cache_folder=str(tmp_path / "cache"))
    save_cached("s3://box/a.tfrecord", "", (1, 1), {"starts": np.zeros(1)})
    assert load_cached("s3://box/a.tfrecord", "", (1, 1)) is not None
    cached.clear()
    assert not list((tmp_path / "cache").iterdir())
