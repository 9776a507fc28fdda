"""Connections to the buckets of object stores: credentials by boto3, requests by obstore."""

from __future__ import annotations

import contextlib
import errno
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.storage import configuration
from model_trainer.storage.objects.checksums import Checksums
from model_trainer.storage.objects.credentials import Credentials, new_client, new_session
from model_trainer.storage.objects.endpoint_check import check_endpoint
from model_trainer.storage.objects.errors import ExpiredError, StoreError, as_os_errors
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["Bucket", "Connections"]

T = TypeVar("T")

STALL_SECONDS = 30  # without a byte; a slow transfer may take as long as it needs
CONNECT_SECONDS = 10
FIRST_SECONDS = 10.0  # within which a server that is just starting has to answer
REQUEST_DAYS = 1
CREDENTIALS_KEPT_SECONDS = 0.15  # obstore asks for other ones after a tenth of a second

_AWS_HOST = re.compile(r"s3[.-]([\w-]+\.)*amazonaws\.com(\.cn)?")


@dataclass
class Bucket:
    """A connected bucket.

    Attributes:
        store: the store of obstore, for the whole bucket.
        name: of the bucket.
        endpoint, region: for messages; empty for other stores than S3.
        client: of boto3, for requests that obstore does not have; None for other stores than S3.
        credentials: those of boto3; None for unsigned requests, and for other stores than S3.
        checksums: what is known about its ETags.
    """

    store: Any
    name: str = ""
    endpoint: str = ""
    region: str = ""
    client: Any = field(default=None, repr=False)
    credentials: Credentials | None = field(default=None, repr=False)
    checksums: Checksums = field(default_factory=Checksums, repr=False)

    @contextlib.contextmanager
    def errors(self, url: ObjectUrl) -> Iterator[None]:
        """Converts the errors of obstore inside the `with` block."""
        with as_os_errors(url, self.endpoint, self.region, lambda: self.find_region(url)):
            try:
                yield
            except Exception:
                if self.credentials is not None and self.credentials.problem:
                    reason = f"the credentials could not be renewed ({self.credentials.problem})"
                    raise ExpiredError(errno.EACCES, reason, url.root) from None
                raise

    def call(self, url: ObjectUrl, request: Callable[[], T]) -> T:
        """Calls a request of obstore and returns its result; retries it with new credentials if they have expired.

        Raises:
            OSError: as `errors` converts it.
        """
        try:
            with self.errors(url):
                return request()
        except ExpiredError:
            if self.credentials is None or not self.credentials.reload():
                raise
            time.sleep(CREDENTIALS_KEPT_SECONDS)
        with self.errors(url):
            return request()

    def head(self, url: ObjectUrl) -> Any:
        """Size, ETag and time of an object, as obstore returns them; raises as `call`."""
        import obstore

        try:
            return self.call(url, lambda: obstore.head(self.store, url.key))
        except StoreError as error:
            if error.errno not in (errno.EACCES, errno.EIO):
                raise
            # The response to HEAD has no body, which would contain the cause.
            with contextlib.suppress(FileNotFoundError):
                self.call(url, lambda: obstore.get(self.store, url.key, options={"range": (0, 1)}))
        return self.call(url, lambda: obstore.head(self.store, url.key))  # with credentials that have been renewed

    def find_region(self, url: ObjectUrl) -> str:
        """The region of the bucket, which AWS returns without credentials; "" if it is unknown."""
        # Not by boto3, which retries forever if a store redirects without naming a region.
        request = urllib.request.Request(f"{self.endpoint}/{url.bucket}", method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:
                headers = answer.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
            error.close()
        except (OSError, ValueError):
            return ""
        return str(headers.get("x-amz-bucket-region", ""))

    def delete_markers(self, folders: Iterable[str]) -> None:
        """Deletes the objects with which other programs, such as the console of AWS, mark folders: "train/"."""
        if self.client is None:
            return
        from botocore.exceptions import BotoCoreError, ClientError

        keys = sorted((f"{folder}/" for folder in folders), key=len, reverse=True)
        with contextlib.suppress(BotoCoreError, ClientError):  # markers are rare, and nothing depends on them
            for start in range(0, len(keys), 1000):
                objects = [{"Key": key} for key in keys[start : start + 1000]]
                self.client.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})

    def is_encrypted(self, url: ObjectUrl) -> bool:
        """Whether the ETag of an object is not an MD5: with SSE-KMS or SSE-C encryption, and in directory buckets."""
        if self.client is None:
            return False
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self.client.head_object(Bucket=url.bucket, Key=url.key)
        except (BotoCoreError, ClientError):
            return False
        kind = answer.get("ServerSideEncryption", "")
        return url.bucket.endswith("--x-s3") or kind.startswith("aws:kms") or "SSECustomerAlgorithm" in answer


@dataclass
class Connections:
    """Connects to each bucket once."""

    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bucket(self, url: ObjectUrl) -> Bucket:
        """The bucket of a URL.

        Raises:
            MissingExtra: obstore or boto3 is not installed.
            ConfigError: the profile does not exist.
            StorageError: there are no credentials.
        """
        with self._lock:
            if url.root not in self._buckets:
                self._buckets[url.root] = _connect_s3(url) if url.scheme == "s3" else _connect_other(url)
            return self._buckets[url.root]


def _connect_s3(url: ObjectUrl) -> Bucket:
    store_module = _obstore()
    session = new_session(url)
    client = new_client(url, session)
    endpoint, region = client.meta.endpoint_url, client.meta.region_name
    credentials = None if configuration.current().anonymous else Credentials(url, session)
    seconds = min(FIRST_SECONDS, configuration.current().retry_seconds)
    check_endpoint(endpoint, url.root, regions=session.get_available_regions("s3"), seconds=seconds)
    signed: dict[str, Any] = {"skip_signature": True} if credentials is None else {"credential_provider": credentials}
    with as_os_errors(url, endpoint, region):
        store = store_module.S3Store(
            url.bucket,
            region=region,
            client_options=_client_options(endpoint, session),
            retry_config=_retries(),
            **_address(url.bucket, endpoint, (client.meta.config.s3 or {}).get("addressing_style", "auto")),
            **signed,
        )
    return Bucket(store, url.bucket, endpoint, region, client, credentials, Checksums(url.root))


def _address(bucket: str, endpoint: str, style: str) -> dict[str, Any]:
    """Options for virtual-hosted style with AWS, otherwise for path style.

    Names with dots are addressed by path, because the certificate of AWS does not cover them as hosts.
    """
    parts = urlsplit(endpoint)
    if style == "virtual" or (style == "auto" and _AWS_HOST.fullmatch(parts.netloc) and "." not in bucket):
        return {"endpoint": f"{parts.scheme}://{bucket}.{parts.netloc}", "virtual_hosted_style_request": True}
    return {"endpoint": endpoint, "virtual_hosted_style_request": False}


def _client_options(endpoint: str, session: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=STALL_SECONDS),
        "timeout": timedelta(days=REQUEST_DAYS),
        "pool_max_idle_per_host": "256",
    }
    bundle = session._session.get_config_variable("ca_bundle")  # AWS_CA_BUNDLE, or that of the profile
    if bundle:
        try:
            options["root_certificate"] = Path(bundle).expanduser().read_bytes()
        except OSError as error:
            reason = f"The certificates in {bundle}, which AWS_CA_BUNDLE names, cannot be read: {error.strerror}."
            raise ConfigError(reason) from None
    return options


def _connect_other(url: ObjectUrl) -> Bucket:
    store_module = _obstore()
    kind = {"gs": "GCSStore", "az": "AzureStore"}[url.scheme]
    options = {"read_timeout": timedelta(seconds=STALL_SECONDS), "timeout": timedelta(days=REQUEST_DAYS)}
    with as_os_errors(url):
        store = getattr(store_module, kind)(url.bucket, client_options=options, retry_config=_retries())
    return Bucket(store, url.bucket, checksums=Checksums(url.root))


def _retries() -> dict[str, Any]:
    """Retries with jitter for a minute by default, enough to restart a server; obstore stops after 10 by default."""
    return {
        "max_retries": 100,
        "retry_timeout": timedelta(seconds=configuration.current().retry_seconds),
        "backoff": {
            "init_backoff": timedelta(seconds=0.2),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }


def _obstore() -> Any:
    try:
        import obstore.store
    except ImportError:
        raise MissingExtra("Paths in object stores", "obstore", "s3") from None
    return obstore.store
