"""Uploads with boto3, which does not use the code under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_trainer.storage import configuration

Upload = Callable[[Path, str], None]


@pytest.fixture
def upload(bucket: str) -> Upload:
    """Uploads a folder to a URL."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])

    def put(folder: Path, url: str) -> None:
        name, _, prefix = url.removeprefix("s3://").partition("/")
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            client.put_object(Bucket=name, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())

    return put


@pytest.fixture
def configure(s3: object) -> Iterator[Callable[..., None]]:
    """Changes the configuration of storages for one test."""
    with pytest.MonkeyPatch.context() as patched:

        def change(**changes: object) -> None:
            config = configuration.Configuration(**{**vars(configuration.current()), **changes})
            patched.setattr(configuration, "current", lambda: config)

        yield change
