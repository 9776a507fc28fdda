"""Faults of networks and stores, injected by a proxy in front of a real server: nothing is lost or half-written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_trainer.errors import StorageError
from model_trainer.storage import files
from model_trainer.storage.objects import connection
from model_trainer.storage.objects.errors import ChangedError, StoreError, StoreUnavailableError
from model_trainer.storage.objects.reader import DamagedError
from model_trainer.storage.objects.store import ObjectStore
from tests.object_stores.conftest import Weed
from tests.object_stores.proxy import Fault, Proxy

CONTENT = bytes(range(256)) * (10 << 10)  # 2.6 MB


@pytest.fixture
def path(bucket: str, s3: Weed) -> str:
    """The path of an existing object."""
    put(s3, f"{bucket}/a.bin", CONTENT)
    return f"{bucket}/a.bin"


def put(s3: Weed, path: str, content: bytes) -> None:
    _, _, bucket, key = path.split("/", 3)
    s3.client().put_object(Bucket=bucket, Key=key, Body=content)


def get(s3: Weed, path: str) -> bytes:
    _, _, bucket, key = path.split("/", 3)
    content: bytes = s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def store_of(path: str) -> ObjectStore:
    store = files.storage_of(path)
    assert isinstance(store, ObjectStore)
    return store


def test_a_truncated_body_is_resumed_where_it_ended(proxy: Proxy, path: str) -> None:
    proxy.faults = [Fault("GET", "a.bin", cut=1_500_000), Fault("GET", "a.bin", cut=200_000)]
    assert files.read(path) == CONTENT
    assert [each.header("Range").partition("-")[0] for each in proxy.requests] == [
        "", "bytes=1500000", "bytes=1700000",
    ]  # fmt: skip


def test_a_truncated_download_is_resumed_even_without_time_for_retries(
    proxy: Proxy, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_retries = {"max_retries": 0}
    monkeypatch.setattr(connection, "_retries", lambda: no_retries)
    proxy.faults = [Fault("GET", "a.bin", cut=1_500_000)]
    store_of(path).download(path, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [each.header("If-Match") != "" for each in proxy.requests] == [False, True]


def test_a_stalled_response_is_retried(proxy: Proxy, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.3)
    proxy.faults = [Fault("GET", "a.bin", stall=1_000_000)]
    assert files.read(path) == CONTENT
    assert proxy.count("GET", "a.bin") == 2


@pytest.mark.long
def test_a_slow_connection_is_not_an_error(proxy: Proxy, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 20)
    proxy.faults = [Fault("GET", "a.bin", pace=50_000)]  # longer than quick_retries allows
    assert files.read(path) == CONTENT
    assert proxy.count("GET", "a.bin") == 1


def test_a_download_damaged_in_transit_is_detected_and_retried(proxy: Proxy, path: str, tmp_path: Path) -> None:
    proxy.faults = [Fault("GET", "a.bin", corrupt=1_500_000)]
    assert files.read(path) == CONTENT
    proxy.faults = [Fault("GET", "a.bin", corrupt=7)]
    with files.local_copy(path) as local:
        assert local.read_bytes() == CONTENT


def test_an_object_that_always_arrives_damaged_is_an_error(proxy: Proxy, path: str, tmp_path: Path) -> None:
    assert files.read(path) == CONTENT  # so ETags are known to be MD5 here
    proxy.faults = [Fault("GET", "a.bin", corrupt=1_500_000, times=4)]
    with pytest.raises(DamagedError, match="its content does not have its checksum"):
        files.read(path)
    with pytest.raises(DamagedError), files.local_copy(path):
        pass


def test_an_upload_damaged_in_transit_is_detected_and_retried(proxy: Proxy, bucket: str, s3: Weed) -> None:
    proxy.faults = [Fault("PUT", "b.bin", corrupt_upload=100)]
    files.write(f"{bucket}/b.bin", CONTENT)
    assert get(s3, f"{bucket}/b.bin") == CONTENT
    assert proxy.count("PUT", "b.bin") == 2


def test_an_upload_that_always_arrives_damaged_is_an_error(proxy: Proxy, bucket: str) -> None:
    proxy.faults = [Fault("PUT", "b.bin", corrupt_upload=100, times=2)]
    with pytest.raises(StorageError, match=r"b\.bin could not be written"):
        files.write(f"{bucket}/b.bin", CONTENT)


def test_a_read_never_mixes_two_versions_of_an_object(proxy: Proxy, path: str, s3: Weed) -> None:
    other = CONTENT[::-1]
    proxy.faults = [Fault("GET", "a.bin", cut=1_500_000, after=lambda: put(s3, path, other))]
    assert files.read(path) == other


def test_an_open_file_does_not_read_a_newer_version(proxy: Proxy, path: str, s3: Weed) -> None:
    with files.open_file(path) as file:
        assert file.read(10) == CONTENT[:10]
        put(s3, path, CONTENT[::-1])
        with pytest.raises(ChangedError, match=r"a\.bin: the object has changed in the meantime"):
            file.read()


def test_an_object_deleted_while_it_is_read_raises_file_not_found(proxy: Proxy, path: str, s3: Weed) -> None:
    def delete() -> None:
        s3.client().delete_object(Bucket=path.split("/")[2], Key="a.bin")

    with files.open_file(path) as file:
        delete()
        with pytest.raises(FileNotFoundError):
            file.read(1)


def test_repeated_server_errors_are_retried(proxy: Proxy, path: str) -> None:
    proxy.faults = [Fault(status=503, code="SlowDown"), Fault(status=500), Fault(status=429)]
    assert files.read(path) == CONTENT
    proxy.faults = [Fault("PUT", status=503, times=3)]
    files.write(f"{path}.new", b"1")
    assert files.read(f"{path}.new") == b"1"


def test_endless_server_errors_raise_unavailable(proxy: Proxy, path: str) -> None:
    proxy.faults = [Fault(status=503, code="SlowDown", times=10_000)]
    with pytest.raises(StoreUnavailableError, match=r"a\.bin: the store asks to slow down") as caught:
        files.read(path)
    assert caught.value.exit_code == 75
    with pytest.raises(StoreUnavailableError):
        files.exists(path)  # instead of returning False
    with pytest.raises(StoreUnavailableError):
        files.names_in(path)


def test_concurrent_reads_that_fail_together_are_all_retried(proxy: Proxy, path: str) -> None:
    at_once = threading.Barrier(4, timeout=60)
    proxy.faults = [Fault("GET", "a.bin", status=503, times=4, before=at_once.wait)]
    with ThreadPoolExecutor(4) as pool:
        assert all(each == CONTENT for each in pool.map(files.read, [path] * 4))
    assert proxy.count("GET", "a.bin") == 8


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (403, "AccessDenied", StoreError, "the credentials have no permission for it"),
        (404, "NoSuchBucket", StoreError, "there is no bucket"),
        (400, "ExpiredToken", StoreUnavailableError, "the credentials have expired; renew them"),
        (301, "PermanentRedirect", StoreError, "the bucket is in another region than us-east-1"),
    ],
)
def test_a_refused_request_is_not_reported_as_a_missing_object(
    proxy: Proxy, path: str, status: int, code: str, kind: type[OSError], message: str
) -> None:
    proxy.faults = [Fault(status=status, code=code, times=100)]
    for access in (files.read, files.exists, files.names_in, files.open_file):
        with pytest.raises(kind, match=message) as caught:
            access(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(kind, match=message):
        files.write(path, b"1")


def test_a_redirect_to_another_region_names_that_region(proxy: Proxy, path: str) -> None:
    proxy.faults = [Fault(status=301, head="x-amz-bucket-region: eu-west-1\r\n", times=100)]
    with pytest.raises(StoreError, match="another region than us-east-1: eu-west-1"):
        files.read(path)


def test_an_archived_object_is_an_error_of_that_object_only(proxy: Proxy, path: str, bucket: str) -> None:
    proxy.faults = [Fault("GET", "a.bin", status=403, code="InvalidObjectState", times=100)]
    with pytest.raises(OSError, match="the object is archived; restore it first") as caught:
        files.read(path)
    assert not isinstance(caught.value, StorageError)
    assert files.names_in(bucket) == ["a.bin"]


def test_a_write_whose_answer_is_lost_is_retried(proxy: Proxy, bucket: str) -> None:
    proxy.faults = [Fault("PUT", "b.bin", drop=True)]
    files.write(f"{bucket}/b.bin", b"1")
    assert files.read(f"{bucket}/b.bin") == b"1"
    assert proxy.count("PUT", "b.bin") == 2


def test_a_failed_multipart_upload_leaves_the_old_object_and_no_parts(
    proxy: Proxy, bucket: str, s3: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_trainer.storage.objects.writer.PART_BYTES", 5 << 20)
    put(s3, f"{bucket}/b.bin", b"old")
    content = os.urandom(1 << 20)

    def broken() -> Iterator[bytes]:
        yield from [content] * 12
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        files.write(f"{bucket}/b.bin", broken())
    proxy.faults = [Fault("PUT", "partNumber=2", status=403, code="AccessDenied", times=100)]
    with pytest.raises(StoreError, match="no permission"):
        files.write(f"{bucket}/b.bin", [content] * 12)
    assert get(s3, f"{bucket}/b.bin") == b"old"
    assert not s3.client().list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads")
    proxy.faults = [Fault("PUT", "partNumber=2", status=503, times=3)]
    files.write(f"{bucket}/b.bin", [content] * 12)
    assert get(s3, f"{bucket}/b.bin") == content * 12
