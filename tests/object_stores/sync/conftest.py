"""Objects as boto3 sees them, a synchronization in one line, and a proxy before the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_trainer.storage import configuration
from model_trainer.storage.sync.sync import Synchronization
from tests.object_stores.conftest import Weed
from tests.object_stores.proxy import Proxy, proxied


@pytest.fixture
def proxy(s3: Weed, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, of which requests are repeated for a second only."""
    with proxied(s3.port) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setenv("MODEL_TRAINER_S3_RETRY_SECONDS", "1")
        configuration.current.cache_clear()
        yield running


def put(s3: Weed, bucket: str, key: str, content: bytes) -> None:
    s3.client().put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=content)


def body(s3: Weed, bucket: str, key: str) -> bytes:
    return bytes(s3.client().get_object(Bucket=bucket.removeprefix("s3://"), Key=key)["Body"].read())


def keys(s3: Weed, bucket: str) -> dict[str, str]:
    """ETags by key."""
    found = s3.client().list_objects_v2(Bucket=bucket.removeprefix("s3://")).get("Contents", [])
    return {each["Key"]: each["ETag"] for each in found}


def synchronized(source: object, target: object, **options: bool) -> Synchronization:
    done = Synchronization(str(source), str(target), **options)
    done.run()
    return done
