"""The lock of a run in an object store: only one process writes to a run."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from model_trainer.storage import files
from model_trainer.storage.folders import only_process
from model_trainer.storage.objects import appends, fence, locks, writer
from model_trainer.storage.objects.locks import LostLockError
from model_trainer.storage.objects.store import ObjectStore
from tests.object_stores.conftest import Weed
from tests.object_stores.proxy import Fault, Proxy

OTHER = {"token": "other", "host": "gpu7", "pid": 12, "pids": "another machine", "renewed": "1"}


@pytest.fixture
def run(bucket: str) -> str:
    return f"{bucket}/output/cats"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is not renewed is taken over at the second poll instead of after 45 seconds."""
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)


def put_lock(weed: Weed, run: str, **changed: Any) -> None:
    bucket, _, key = run.removeprefix("s3://").partition("/")
    content = json.dumps({**OTHER, **changed}).encode()
    weed.client().put_object(Bucket=bucket, Key=f"{key}/logs/.lock", Body=content)


@contextlib.contextmanager
def taken_over(weed: Weed, run: str) -> Iterator[None]:
    """Inside the block, this process has locked the run, and another process has taken it over since."""
    with contextlib.suppress(LostLockError), only_process(files.as_path(run) / "logs"):
        put_lock(weed, run)
        lock = files.storage_of(run).locks._held[0]  # type: ignore[attr-defined]
        lock.renewed -= 31  # as if this process had been stopped for so long
        yield


def test_only_one_of_many_processes_gets_the_lock(s3: Weed, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has its own `ObjectStore`."""
    stores = [ObjectStore() for _ in range(8)]
    start, end = threading.Barrier(8), threading.Barrier(8)

    def take(store: ObjectStore) -> bool:
        start.wait(60)
        try:
            with store.lock(f"{run}/logs"):
                end.wait(60)
                return True
        except BlockingIOError:
            end.wait(60)
            return False

    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.05)  # so that the others see that its holder is alive
    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(take, stores)) == [False] * 7 + [True]


def test_the_lock_of_an_ended_process_is_taken_over_at_once(
    s3: Weed, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    put_lock(s3, run, pid=child, pids=locks._pids())
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: pytest.fail("it waits"))
    with only_process(files.as_path(run) / "logs"):
        pass


@pytest.mark.usefixtures("quick")
def test_a_lock_that_is_not_renewed_is_taken_over(s3: Weed, run: str) -> None:
    put_lock(s3, run)
    with only_process(files.as_path(run) / "logs"):
        assert locks._holder(*located(run))["token"] != "other"  # type: ignore[index]
    assert locks._holder(*located(run)) is None


def located(run: str) -> Any:
    url, bucket = files.storage_of(run).locate(f"{run}/logs")  # type: ignore[attr-defined]
    return bucket, url


def test_a_shared_lock_is_refused_while_a_run_is_trained(s3: Weed, run: str) -> None:
    put_lock(s3, run)
    with (
        pytest.raises(BlockingIOError, match="process 12 of gpu7 writes to it"),
        files.lock(f"{run}/logs", shared=True),
    ):
        pass


def test_a_process_that_lost_its_lock_cannot_write(s3: Weed, run: str) -> None:
    with taken_over(s3, run):
        for write in (
            lambda: files.write(f"{run}/final_model.hdf5", b"late"),
            lambda: files.write_folder(f"{run}/checkpoints/epoch-1", [("arrays.bin", [b"late"])]),
            lambda: files.delete_folder(f"{run}/checkpoints"),
            lambda: files.copy(f"{run}/logs/.lock", f"{run}/copy"),
        ):
            with pytest.raises(LostLockError, match="another process has taken over this run"):
                write()
    listed = s3.client().list_objects_v2(Bucket=run.split("/")[2])["Contents"]
    assert [each["Key"] for each in listed] == ["output/cats/logs/.lock"]


def test_a_lost_lock_still_prevents_writes_after_its_with_block(s3: Weed, run: str) -> None:
    with taken_over(s3, run), pytest.raises(LostLockError):
        files.write(f"{run}/a", b"")
    with pytest.raises(LostLockError):
        files.write(f"{run}/a", b"")


def test_a_lost_lock_does_not_prevent_writes_to_other_runs(s3: Weed, run: str) -> None:
    with taken_over(s3, run), pytest.raises(LostLockError):
        files.write(f"{run}/a", b"")
    files.write(f"{run}-2/a", b"")
    assert files.read(f"{run}-2/a") == b""


def test_a_lost_lock_has_exit_code_75(s3: Weed, run: str) -> None:
    held = only_process(files.as_path(run) / "logs")
    held.__enter__()
    put_lock(s3, run)
    with pytest.raises(LostLockError) as raised:
        held.__exit__(None, None, None)
    assert raised.value.exit_code == 75
    assert locks._holder(*located(run))["token"] == "other"  # type: ignore[index]


def test_the_lock_is_kept_if_the_answer_to_a_renewal_is_lost(s3: Weed, run: str) -> None:
    with only_process(files.as_path(run) / "logs"):
        lock = files.storage_of(run).locks._held[0]  # type: ignore[attr-defined]
        known = lock.version
        lock.renew()
        lock.version = known  # this process does not know that its renewal was written
        lock.renew()
        files.write(f"{run}/a", b"x")


def test_the_lock_is_not_listed(s3: Weed, run: str) -> None:
    with only_process(files.as_path(run) / "logs"):
        files.write(f"{run}/logs/train.log", b"")
        assert files.names_in(f"{run}/logs") == ["train.log"]


def test_taking_the_lock_aborts_unfinished_uploads_of_that_run_only(s3: Weed, run: str) -> None:
    client, bucket = s3.client(), run.split("/")[2]
    for key in ("output/cats/model.hdf5", "output/cats-2/model.hdf5"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"begun")
    with only_process(files.as_path(run) / "logs"):
        left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [each["Key"] for each in left] == ["output/cats-2/model.hdf5"]


@contextlib.contextmanager
def taken_over_during(proxy: Proxy, weed: Weed, run: str, fault: Fault) -> Iterator[None]:
    """While the request that matches `fault` is on its way, another process takes over the run and writes a model."""
    bucket, _, key = run.removeprefix("s3://").partition("/")

    def take_over() -> None:
        put_lock(weed, run)
        weed.client().put_object(Bucket=bucket, Key=f"{key}/model.hdf5", Body=b"of the other")
        for lock in files.storage_of(run).locks._held:  # type: ignore[attr-defined]
            lock.renewed -= 46

    with contextlib.suppress(LostLockError), only_process(files.as_path(run) / "logs"):
        files.write(f"{run}/model.hdf5", b"of this one")
        fault.before = take_over
        proxy.faults = [fault]
        with pytest.raises(LostLockError):
            yield
    assert fault.times == 0
    assert weed.client().get_object(Bucket=bucket, Key=f"{key}/model.hdf5")["Body"].read() == b"of the other"


def test_a_write_that_arrives_after_a_takeover_is_refused(proxy: Proxy, s3: Weed, run: str) -> None:
    with taken_over_during(proxy, s3, run, Fault("PUT", "model.hdf5")):
        files.write(f"{run}/model.hdf5", b"late")


def test_a_multipart_upload_that_begins_after_a_takeover_is_refused(
    proxy: Proxy, s3: Weed, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_BYTES", 5 << 20)
    with taken_over_during(proxy, s3, run, Fault("POST", "uploads")):
        files.write(f"{run}/model.hdf5", [bytes(1 << 20)] * 6)
    assert not s3.client().list_multipart_uploads(Bucket=run.split("/")[2]).get("Uploads")


def test_a_deletion_is_not_retried_after_a_takeover(
    proxy: Proxy, s3: Weed, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "RETRY_SECONDS", 0.0)
    with taken_over_during(proxy, s3, run, Fault("POST", "?delete", status=503)):
        files.delete(f"{run}/model.hdf5")


def test_a_write_under_a_lock_is_retried_if_its_answer_is_lost(proxy: Proxy, run: str) -> None:
    with only_process(files.as_path(run) / "logs"):
        proxy.faults = [Fault("PUT", "model.hdf5", drop=True), Fault("PUT", "model.hdf5", status=503)]
        files.write(f"{run}/model.hdf5", b"1")
        proxy.faults = [Fault("PUT", "model.hdf5", drop=True)]
        files.write(f"{run}/model.hdf5", b"2")
        assert files.read(f"{run}/model.hdf5") == b"2"
        files.write(f"{run}/model.hdf5", [bytes(1 << 20)] * 17)
        assert len(files.read(f"{run}/model.hdf5")) == 17 << 20


def test_a_run_whose_lock_was_lost_can_be_read_and_locked_again(
    s3: Weed, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appends.Appends, "_flush_later", lambda *arguments: None)
    with contextlib.suppress(LostLockError), only_process(files.as_path(run) / "logs"):
        log = files.append(f"{run}/logs/train.log")
        put_lock(s3, run)
        with pytest.raises(LostLockError):
            files.storage_of(run).locks._held[0].renew()  # type: ignore[attr-defined]
        log.write(b"late\n")
    assert files.names_in(run) == ["logs"]
    files.make_folder(f"{run}/logs")
    assert files.read(f"{run}/logs/train.log") == b""
    s3.client().delete_object(Bucket=run.split("/")[2], Key="output/cats/logs/.lock")  # the other process has ended
    with only_process(files.as_path(run) / "logs"):
        files.append_text(f"{run}/logs/train.log", "new\n")
        assert files.read(f"{run}/logs/train.log") == b"new\n"
