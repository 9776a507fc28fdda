"""Connections to the buckets of object stores: credentials by boto3, requests by obstore."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.storage import configuration
from model_trainer.storage.objects.errors import StoreError, UnavailableError, as_os_errors
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["Bucket", "Connections", "s3_client"]

CREDENTIAL_SECONDS = 300  # how soon credentials that boto3 has refreshed are used
STALL_SECONDS = 30  # without a byte; a slow transfer may take as long as it needs
CONNECT_SECONDS = 10
REQUEST_DAYS = 1

_NO_CREDENTIALS = (
    "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure` "
    "or `aws sso login`; for a public bucket set MODEL_TRAINER_S3_ANONYMOUS=1"
)


@dataclass
class Bucket:
    """A connected bucket.

    Attributes:
        store: the store of obstore, for the whole bucket.
        endpoint, region: for messages; empty for other stores than S3.
    """

    store: Any
    endpoint: str = ""
    region: str = ""
    credentials: _Credentials | None = None

    @contextlib.contextmanager
    def errors(self, url: ObjectUrl) -> Iterator[None]:
        """Converts the errors of obstore inside the `with` block."""
        with as_os_errors(url, self.endpoint, self.region):
            try:
                yield
            except Exception:
                if self.credentials is not None and self.credentials.problem:
                    reason = f"the credentials could not be refreshed ({self.credentials.problem})"
                    raise UnavailableError(errno.EACCES, reason, url.root) from None
                raise


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


class _Credentials:
    """Gives obstore the credentials of boto3, which renews those that expire."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self.problem = ""

    def __call__(self) -> dict[str, Any]:
        try:
            frozen = self._credentials.get_frozen_credentials()
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            raise
        self.problem = ""
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=CREDENTIAL_SECONDS),
        }


def _connect_s3(url: ObjectUrl) -> Bucket:
    store_module = _obstore()
    session, client = _aws(url)
    config = configuration.current()
    endpoint, region = client.meta.endpoint_url, client.meta.region_name
    credentials = None if config.anonymous else _Credentials(session.get_credentials())
    is_aws = endpoint.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    # AWS names buckets by host; another server, and a name with dots, by path.
    placed = {"virtual_hosted_style_request": True} if is_aws and "." not in url.bucket else {"endpoint": endpoint}
    signed: dict[str, Any] = {"skip_signature": True} if credentials is None else {"credential_provider": credentials}
    store = store_module.S3Store(
        url.bucket,
        region=region,
        client_options=_client_options(endpoint, client),
        retry_config=_retries(),
        **placed,
        **signed,
    )
    return Bucket(store, endpoint, region, credentials)


def _aws(url: ObjectUrl) -> tuple[Any, Any]:
    """A boto3 session, which has credentials, and a client for S3."""
    try:
        import boto3
        import botocore
        import botocore.exceptions
    except ImportError:
        raise MissingExtra(f"{url.scheme}:// paths", "boto3", "s3") from None
    config = configuration.current()
    try:
        session = boto3.Session(profile_name=config.profile or None, region_name=config.region or None)
        client = session.client(
            "s3", endpoint_url=config.endpoint or None, region_name=session.region_name or "us-east-1"
        )
    except botocore.exceptions.ProfileNotFound as error:
        raise ConfigError(
            f"{error}. `aws configure list-profiles` lists the profiles; AWS_PROFILE chooses one."
        ) from None
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise ConfigError(f"{url.root} cannot be reached: {error}") from None
    if not config.anonymous and session.get_credentials() is None:
        raise StoreError(errno.EACCES, _NO_CREDENTIALS, url.root)
    return session, client


def s3_client(url: ObjectUrl) -> Any:
    """A client of boto3, for the few requests that obstore does not have."""
    return _aws(url)[1]


def _client_options(endpoint: str, client: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=STALL_SECONDS),
        "timeout": timedelta(days=REQUEST_DAYS),
        "pool_max_idle_per_host": "256",
    }
    return options


def _connect_other(url: ObjectUrl) -> Bucket:
    store_module = _obstore()
    kind = {"gs": "GCSStore", "az": "AzureStore"}[url.scheme]
    options = {"read_timeout": timedelta(seconds=STALL_SECONDS), "timeout": timedelta(days=REQUEST_DAYS)}
    with as_os_errors(url):
        store = getattr(store_module, kind)(url.bucket, client_options=options, retry_config=_retries())
    return Bucket(store)


def _retries() -> dict[str, Any]:
    """Repeats requests with jitter for a minute, in which a server can be restarted; obstore's default is 3 seconds."""
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
