"""`sync` under faults: damage, broken connections, refusals, full disks, Ctrl-C and killed processes."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from model_trainer.errors import StorageError, UnavailableError
from model_trainer.storage.sync.partial import PartialFile
from model_trainer.storage.sync.sync import MAX_REFUSALS, Synchronization
from tests.object_stores.conftest import Weed
from tests.object_stores.proxy import Fault, Proxy
from tests.object_stores.sync.conftest import body, client_of, keys, put, synchronize

LARGE = (16 << 20) + 1


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_bytes(b"content %d" % number)
    return folder


def test_a_damaged_download_is_retried(proxy: Proxy, s3: Weed, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "x", b"0123456789")
    proxy.faults = [Fault("GET", "/x", corrupt=5)]
    synchronize(bucket, tmp_path / "there")
    assert (tmp_path / "there" / "x").read_bytes() == b"0123456789"
    assert proxy.count("GET", "/x") == 2


def test_a_damaged_upload_is_retried(proxy: Proxy, s3: Weed, bucket: str, here: Path) -> None:
    proxy.faults = [Fault("PUT", "/1.txt", corrupt_upload=0)]
    synchronize(here, bucket)
    assert body(s3, bucket, "1.txt") == b"content 1"


def test_a_download_that_is_damaged_every_time_is_listed_and_leaves_no_file(
    proxy: Proxy, s3: Weed, bucket: str, tmp_path: Path
) -> None:
    put(s3, bucket, "x", b"0123456789")
    put(s3, bucket, "y", b"1")
    proxy.faults = [Fault("GET", "/x", corrupt=5), Fault("GET", "/x", corrupt=6)]
    done = synchronize(bucket, tmp_path / "there")
    assert [name for name, _ in done.failures] == ["x"]
    assert os.listdir(tmp_path / "there") == ["y"]


@pytest.mark.long
def test_a_damaged_range_of_a_large_object_is_detected(proxy: Proxy, s3: Weed, bucket: str, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 17
    put(s3, bucket, "large", content)
    proxy.faults = [Fault("GET", "/large", corrupt=1000)]
    synchronize(bucket, tmp_path / "there")
    assert (tmp_path / "there" / "large").read_bytes() == content
    assert os.listdir(tmp_path / "there") == ["large"]


def test_an_upload_that_is_damaged_every_time_is_listed_and_copied_again_later(
    proxy: Proxy, s3: Weed, bucket: str, here: Path
) -> None:
    proxy.faults = [Fault("PUT", "/1.txt", times=100, corrupt_upload=0)]
    assert [name for name, _ in synchronize(here, bucket).failures] == ["1.txt"]
    proxy.faults = []
    synchronize(here, bucket)
    assert body(s3, bucket, "1.txt") == b"content 1"


@pytest.mark.long
def test_unfinished_multipart_uploads_of_killed_processes_are_aborted(s3: Weed, bucket: str, here: Path) -> None:
    client, name = client_of(s3), bucket.removeprefix("s3://")
    for key in ("0.bin", "0.bin.other"):
        client.create_multipart_upload(Bucket=name, Key=key)
    (here / "0.bin").write_bytes(bytes(LARGE))
    synchronize(here, bucket)
    assert [each["Key"] for each in client.list_multipart_uploads(Bucket=name)["Uploads"]] == ["0.bin.other"]


def test_a_single_refused_object_is_listed_and_the_others_are_copied(
    proxy: Proxy, s3: Weed, bucket: str, here: Path
) -> None:
    proxy.faults = [Fault("PUT", "/1.txt", times=100, status=403, code="AccessDenied")]
    done = synchronize(here, bucket)
    assert [name for name, reason in done.failures if "no permission" in reason] == ["1.txt"]
    assert body(s3, bucket, "2.txt") == b"content 2"


def test_many_refusals_end_the_synchronization(proxy: Proxy, bucket: str, here: Path) -> None:
    for number in range(3, 3 * MAX_REFUSALS):
        (here / f"{number}.txt").write_bytes(b"")
    proxy.faults = [Fault("PUT", times=1000, status=403, code="AccessDenied")]
    with pytest.raises(StorageError, match="the credentials have no permission"):
        synchronize(here, bucket)
    assert proxy.count("PUT") < 3 * MAX_REFUSALS


def test_a_store_that_does_not_answer_ends_the_synchronization_with_75(proxy: Proxy, bucket: str, here: Path) -> None:
    proxy.faults = [Fault("PUT", times=100_000, status=503, code="ServiceUnavailable")]
    with pytest.raises(UnavailableError) as caught:
        synchronize(here, bucket)
    assert caught.value.exit_code == 75


def test_a_full_disk_ends_the_synchronization_and_leaves_no_file(
    s3: Weed, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, bucket, "x\u202e", b"1")

    def is_full(self: PartialFile, offset: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PartialFile, "write_at", is_full)
    with pytest.raises(StorageError, match=r"x\\u202e could not be written: No space left on device"):
        synchronize(bucket, tmp_path / "there")
    assert os.listdir(tmp_path / "there") == []


def test_a_file_that_changes_while_it_is_copied_is_listed(proxy: Proxy, s3: Weed, bucket: str, here: Path) -> None:
    def change() -> None:
        (here / "1.txt").write_bytes(b"longer than before")

    proxy.faults = [Fault("PUT", "/1.txt", before=change)]
    done = synchronize(here, bucket)
    assert done.failures == [("1.txt", "It was changed while it was copied")]
    assert set(keys(s3, bucket)) == {"0.txt", "2.txt"}  # an object newer than its file would look up to date
    assert synchronize(here, bucket).num_copied == 1


def broken_download(proxy: Proxy, s3: Weed, bucket: str, folder: Path) -> tuple[bytes, Path]:
    """The content of a large object, and the partial file of its download after the server has failed."""
    content = os.urandom(1 << 20) * 33
    put(s3, bucket, "large", content)
    proxy.faults = [Fault("GET", "/large", times=2), Fault("GET", "/large", times=100, status=503)]
    with pytest.raises(UnavailableError):
        Synchronization(bucket, str(folder), jobs=1).run()
    (left,) = folder.iterdir()
    return content, left


@pytest.mark.long
def test_an_interrupted_large_download_is_resumed(proxy: Proxy, s3: Weed, bucket: str, tmp_path: Path) -> None:
    content, left = broken_download(proxy, s3, bucket, tmp_path / "there")
    assert left.name.endswith(".partial")
    proxy.faults, proxy.requests = [], []
    synchronize(bucket, tmp_path / "there")
    assert (tmp_path / "there" / "large").read_bytes() == content
    assert proxy.count("GET", "/large") == 1
    assert os.listdir(tmp_path / "there") == ["large"]


@pytest.mark.long
def test_a_damaged_partial_download_is_downloaded_again(proxy: Proxy, s3: Weed, bucket: str, tmp_path: Path) -> None:
    content, left = broken_download(proxy, s3, bucket, tmp_path / "there")
    with left.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    proxy.faults = []
    synchronize(bucket, tmp_path / "there")
    assert (tmp_path / "there" / "large").read_bytes() == content


def test_temporary_files_of_killed_processes_are_deleted(s3: Weed, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "x", b"1")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / f".{'0' * 32}.partial").write_bytes(b"left")
    synchronize(bucket, tmp_path / "there")
    assert os.listdir(tmp_path / "there") == ["x"]


def test_a_file_that_another_process_is_copying_is_listed(s3: Weed, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "x", b"1")
    (tmp_path / "there").mkdir()
    with PartialFile(str(tmp_path / "there" / "x")):
        done = synchronize(bucket, tmp_path / "there")
    assert done.failures == [("x", "Another process is copying it")]


def test_an_upload_that_another_process_aborts_is_listed(
    proxy: Proxy, bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_trainer.storage.sync.upload.PART_BYTES", 1)
    proxy.faults = [Fault("PUT", "/1.txt?partNumber", status=404, code="NoSuchUpload")]
    assert synchronize(here, bucket).failures == [("1.txt", "Another process is uploading it")]


def test_progress_is_reported_while_the_target_is_listed(proxy: Proxy, bucket: str, here: Path) -> None:
    reported = threading.Event()
    proxy.faults = [Fault("GET", before=lambda: reported.wait(10))]
    Synchronization(str(here), bucket, on_progress=lambda sync: None if sync.num_files else reported.set()).run()
    assert reported.is_set()


@pytest.mark.long
def test_ctrl_c_leaves_no_unfinished_multipart_upload(s3: Weed, bucket: str, here: Path) -> None:
    (here / "0.bin").write_bytes(bytes(LARGE))
    (here / "1.bin").write_bytes(bytes(LARGE))
    sync = Synchronization(str(here), bucket, jobs=1)
    moved = sync._moved

    def press(num_bytes: int) -> None:
        if not sync.num_moved:
            os.kill(os.getpid(), signal.SIGINT)
        moved(num_bytes)

    sync._moved = press  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        sync.run()
    assert "Uploads" not in client_of(s3).list_multipart_uploads(Bucket=bucket.removeprefix("s3://"))
    assert sync.num_copied < 5
    synchronize(here, bucket)
    assert set(keys(s3, bucket)) == set(os.listdir(here))


def test_a_programming_error_is_not_reported_as_a_failed_file(
    bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """As the panics of obstore, not an `Exception`."""

    def panic(*_: object) -> None:
        raise Panic

    monkeypatch.setattr("model_trainer.storage.sync.upload.write_object", panic)
    with pytest.raises(Panic):
        synchronize(here, bucket)
