"""A server that is killed in the middle of a transfer and restarted: the transfer is completed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from model_trainer.storage import files
from model_trainer.storage.objects.errors import StoreUnavailableError
from tests.object_stores.conftest import Weed, serving
from tests.object_stores.proxy import Fault, Proxy, proxied

CONTENT = os.urandom(1 << 20) * 40


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """A server that only this module uses."""
    pytest.importorskip("obstore")
    pytest.importorskip("boto3")
    with serving(tmp_path_factory.mktemp("own")) as server:
        server.client().create_bucket(Bucket="photos")
        yield server


@pytest.fixture
def proxy(own_server: Weed, s3: Weed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(own_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.mark.long
def test_a_download_is_resumed_after_a_restart_of_the_server(proxy: Proxy, own_server: Weed) -> None:
    own_server.client().put_object(Bucket="photos", Key="a.bin", Body=CONTENT)
    proxy.faults = [
        Fault("GET", "a.bin", cut=15_000_000, after=own_server.kill),
        Fault("GET", "a.bin"),  # while no server answers
        Fault("GET", "a.bin", before=own_server.start),
    ]
    with files.local_copy("s3://photos/a.bin") as local:
        assert local.read_bytes() == CONTENT
    assert proxy.requests[-1].header("Range") == f"bytes=15000000-{len(CONTENT) - 1}"


@pytest.mark.slow
def test_a_multipart_upload_is_completed_after_a_restart_of_the_server(proxy: Proxy, own_server: Weed) -> None:
    proxy.faults = [
        Fault("PUT", "partNumber=2&", before=own_server.kill),
        Fault("PUT", "partNumber=2&"),  # while no server answers
        Fault("PUT", "partNumber=2&", before=own_server.start),
    ]
    files.write("s3://photos/b.bin", (CONTENT[start : start + (1 << 20)] for start in range(0, len(CONTENT), 1 << 20)))
    assert own_server.client().get_object(Bucket="photos", Key="b.bin")["Body"].read() == CONTENT


@pytest.mark.slow
def test_small_objects_are_written_and_read_after_a_restart_of_the_server(proxy: Proxy, own_server: Weed) -> None:
    proxy.faults = [
        Fault("PUT", "c.bin", before=own_server.kill),
        Fault("PUT", "c.bin"),
        Fault("PUT", before=own_server.start),
    ]
    files.write("s3://photos/c.bin", b"small")
    proxy.faults = [
        Fault("GET", "c.bin", before=own_server.kill),
        Fault("GET", "c.bin"),
        Fault("GET", before=own_server.start),
    ]
    assert files.read("s3://photos/c.bin") == b"small"


@pytest.mark.long
def test_a_server_that_stays_down_raises_unavailable_with_exit_code_75(
    own_server: Weed, s3: Weed, monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", own_server.endpoint)
    assert not files.exists("s3://photos/none")
    own_server.kill()
    try:
        with pytest.raises(StoreUnavailableError, match=r"http://127\.0\.0\.1:\d+ does not answer") as caught:
            files.read("s3://photos/none")
    finally:
        own_server.start()
    assert caught.value.exit_code == 75
