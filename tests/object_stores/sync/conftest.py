"""Objects read and written with boto3, a function that synchronizes, and a proxy in front of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_trainer.storage import configuration
from model_trainer.storage.sync.sync import Synchronization
from tests.object_stores.conftest import Weed
from tests.object_stores.proxy import Proxy, proxied

PARTIAL = f".{'0' * 32}.partial"  # name of a temporary file


@pytest.fixture
def proxy(s3: Weed, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy in front of the server; failed requests are retried for only a second."""
    with proxied(s3.port) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setenv("MODEL_TRAINER_S3_RETRY_SECONDS", "1")
        configuration.current.cache_clear()
        yield running


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("precious.txt", PARTIAL):
        (folder / name).write_bytes(b"precious")
    return folder


_CLIENTS: dict[str, Any] = {}  # by endpoint; to make one takes a tenth of a second


def client_of(s3: Weed) -> Any:
    if s3.endpoint not in _CLIENTS:
        _CLIENTS[s3.endpoint] = s3.client()
    return _CLIENTS[s3.endpoint]


def put(s3: Weed, bucket: str, key: str, content: bytes) -> None:
    client_of(s3).put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=content)


def body(s3: Weed, bucket: str, key: str) -> bytes:
    return bytes(client_of(s3).get_object(Bucket=bucket.removeprefix("s3://"), Key=key)["Body"].read())


def keys(s3: Weed, bucket: str) -> dict[str, str]:
    """The ETag of each object in the bucket, by key."""
    objects = client_of(s3).list_objects_v2(Bucket=bucket.removeprefix("s3://")).get("Contents", [])
    return {each["Key"]: each["ETag"] for each in objects}


def synchronize(source: object, target: object, **options: bool) -> Synchronization:
    done = Synchronization(str(source), str(target), **options)
    done.run()
    return done
