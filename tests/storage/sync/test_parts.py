"""The parts of `sync` that can be tested without a server."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from model_trainer.cli.sync_progress import SyncProgress
from model_trainer.storage.objects.read_ahead import read_ahead
from model_trainer.storage.sync.download import is_inside
from model_trainer.storage.sync.etags import range_size
from model_trainer.storage.sync.partial import PartialFile, delete_partial_files
from model_trainer.storage.sync.sync import Synchronization
from model_trainer.storage.sync.workers import Workers

MIB = 1 << 20


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a//b", "/etc/x", "a/./b", "..", "a\0b", ""])
def test_keys_that_lead_out_of_the_folder_are_refused(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["a", "a/b c", "...", "a..b/.c", "a\\b"])
def test_other_keys_are_accepted(name: str) -> None:
    assert is_inside(name)


def test_a_partial_file_gets_its_final_name_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with PartialFile(str(path)) as partial:
        partial.write(b"1")
        assert not path.exists()
        partial.finish(5_000_000_000)
    assert (path.read_bytes(), path.stat().st_mtime) == (b"1", 5)
    assert os.listdir(tmp_path) == ["x"]


def test_an_unfinished_partial_file_is_deleted_and_the_old_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with PartialFile(str(tmp_path / "x")) as partial:
        partial.write(b"new")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_partial_file_that_is_being_written_is_not_deleted(tmp_path: Path) -> None:
    with PartialFile(str(tmp_path / "x")) as partial:
        (path,) = tmp_path.iterdir()
        delete_partial_files([str(path), str(tmp_path / "gone")])
        partial.write(b"1")
        partial.finish(0)
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_file_with_the_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    with PartialFile(str(tmp_path / ("x" * 255))) as partial:
        partial.write(b"1")
        partial.finish(0)
    assert os.listdir(tmp_path) == ["x" * 255]


@pytest.mark.parametrize(
    ("size", "etag", "expected"),
    [
        (40 * MIB, f'"{"a" * 32}-3"', 16 * MIB),  # as our own uploads
        (40 * MIB, f'"{"a" * 32}-5"', 8 * MIB),  # as uploads of the AWS command line
        (40 * MIB, f'"{"a" * 32}-8"', 5 * MIB),
        (40 * MIB, f'"{"a" * 32}"', 16 * MIB),
        (40 * MIB, f'"{"a" * 32}-39"', 16 * MIB),  # not a common part size
        (40 * MIB, "0x8D", 16 * MIB),
    ],
)
def test_ranges_have_the_part_size_of_the_upload(size: int, etag: str, expected: int) -> None:
    assert range_size(size, etag) == expected


def test_read_ahead_yields_all_items_before_it_raises_the_error() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("broken")

    ahead = read_ahead(items())
    assert [next(ahead), next(ahead), next(ahead)] == [1, 2, 3]
    with pytest.raises(OSError, match="broken"):
        next(ahead)


def test_closing_read_ahead_ends_its_thread() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = read_ahead(items())
    next(ahead)
    ahead.close()
    assert closed.wait(30)


def test_helpers_run_before_waiting_functions() -> None:
    order: list[str] = []
    workers = Workers(1, lambda: None)

    def first() -> None:
        order.append("first")
        workers.assist(1, lambda: order.append("helper"))

    is_ready = threading.Event()
    workers.submit(lambda: is_ready.wait(30) and None)
    workers.submit(first)
    workers.submit(lambda: order.append("second"))
    is_ready.set()
    workers.wait()
    assert workers.close()
    assert order == ["first", "helper", "second"]


def test_stopped_workers_start_no_function() -> None:
    started: list[int] = []
    workers = Workers(2, lambda: None)
    workers.stop.set()
    workers.submit(lambda: started.append(1))
    workers.wait()
    assert workers.close()
    assert started == []


def test_progress_shows_files_bytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("model_trainer.cli.sync_progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = SyncProgress(Console(file=out))
    sync = Synchronization("a", "s3://b")
    sync.num_files, sync.num_bytes, sync.num_copied, sync.num_moved = 4, 8_000_000, 1, 2_000_000
    sync.is_listed = True
    now[0] = 10.0
    progress.update(sync)
    assert out.getvalue() == "Copying  1/4 files  2.0 MB/8.0 MB  200 kB/s  30 s left\n"


def test_progress_marks_totals_that_are_still_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("model_trainer.cli.sync_progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = SyncProgress(Console(file=out))
    sync = Synchronization("a", "s3://b")
    sync.num_files, sync.num_bytes = 1000, 8_000_000
    now[0] = 10.0
    progress.update(sync)
    assert out.getvalue() == "Copying  0/1,000+ files  0 bytes/8.0 MB+\n"
