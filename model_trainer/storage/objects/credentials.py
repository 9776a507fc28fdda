"""Credentials and settings of AWS: from boto3, which knows profiles, roles, SSO, containers and instances."""

from __future__ import annotations

import errno
import functools
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.storage import configuration
from model_trainer.storage.objects.errors import StoreError
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["Credentials", "boto_errors", "new_client", "new_session"]

# obstore requests credentials again if they are valid for less than five minutes, ten times a second at most. So
# credentials that boto3 has renewed are used at once.
VALID_SECONDS = 60

_NO_CREDENTIALS = (
    "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure` "
    "or `aws sso login`; for a public bucket set MODEL_TRAINER_S3_ANONYMOUS=1"
)


class Credentials:
    """Gives obstore the credentials of boto3, which renews those that expire.

    Args:
        url: of the bucket, for messages.
        session: of boto3.

    Raises:
        StoreError: there are no credentials.

    Attributes:
        problem: why boto3 could not renew them; "" if the last renewal succeeded.
    """

    def __init__(self, url: ObjectUrl, session: Any) -> None:
        self._url = url
        self._credentials = self._resolve(session)
        self._last: Any = None  # the credentials last given to obstore
        self._lock = threading.Lock()
        self.problem = ""

    def __call__(self) -> dict[str, Any]:
        try:
            frozen = self._credentials.get_frozen_credentials()
        except Exception as error:
            self.problem = _reason(error)
            raise
        self.problem, self._last = "", frozen
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=VALID_SECONDS),
        }

    def reload(self) -> bool:
        """Gets the credentials from their files or processes again, because the store says that they have expired.

        Returns:
            Whether they have changed.
        """
        with self._lock:
            before = self._last
            try:
                self._credentials = self._resolve(new_session(self._url))
                self()
            except Exception as error:  # noqa: BLE001, the caller raises the one that it has
                self.problem = _reason(error)
            return before != self._last

    def _resolve(self, session: Any) -> Any:
        with boto_errors(self._url):
            credentials = session.get_credentials()
            if credentials is not None:
                _check(credentials.get_frozen_credentials(), self._url)  # finds an expired login before a request
        if credentials is None:
            raise StoreError(errno.EACCES, _NO_CREDENTIALS, self._url.root)
        return credentials


def new_session(url: ObjectUrl) -> Any:
    """A session of boto3 with the configured profile and region.

    Raises:
        MissingExtra: boto3 is not installed.
        ConfigError: the profile does not exist.
    """
    try:
        import boto3
        from botocore.session import Session
    except ImportError:
        raise MissingExtra(f"{url.scheme}:// paths", "boto3", "s3") from None
    # Its log would contain whatever a `credential_process` prints when it fails.
    logging.getLogger("botocore.credentials").addFilter(_without_traceback)
    config = configuration.current()
    with boto_errors(url):
        if config.profile_is_chosen:  # it takes precedence over credentials in variables, as with `aws --profile`
            core = Session(profile=config.profile)
        else:  # AWS' own order: variables take precedence over a profile, also over one in model-trainer.toml
            variables = ["AWS_DEFAULT_PROFILE", "AWS_PROFILE"]
            core = Session(session_vars={"profile": (None, variables, config.profile or None, None)})
        core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
        return boto3.Session(botocore_session=core, region_name=config.region or None)


@functools.cache
def _loader(data_path: str | None) -> Any:
    """Reads botocore's data files once, instead of for each session: 80 of the 90 ms that creating a client takes."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def new_client(url: ObjectUrl, session: Any, *, anonymous: bool | None = None) -> Any:
    """boto3's client for S3, at the configured endpoint.

    Args:
        url: of the bucket, for messages.
        session: of boto3.
        anonymous: whether requests are unsigned; None uses the configured value.

    Raises:
        ConfigError: the endpoint contains a user or a password, or is not valid.
    """
    import botocore
    from botocore.config import Config

    config = configuration.current()
    is_anonymous = config.anonymous if anonymous is None else anonymous
    options = Config(signature_version=botocore.UNSIGNED) if is_anonymous else None
    with boto_errors(url):
        client = session.client(
            "s3", endpoint_url=config.endpoint or None, region_name=session.region_name or "us-east-1", config=options
        )
    if "@" in client.meta.endpoint_url:
        raise ConfigError(
            "The endpoint_url of the profile contains a user or a password, which no S3 server reads. Put credentials "
            "into ~/.aws/credentials."
        )
    return client


def _check(frozen: Any, url: ObjectUrl) -> None:
    """Refuses what a header cannot contain, such as the line break in a Kubernetes secret that `echo` has written."""
    names = {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
    for name, value in {**names, "AWS_SESSION_TOKEN": frozen.token}.items():
        if value and not re.fullmatch(r"[!-~]+", value):
            reason = f"{name}, or its line in the profile, contains a line break, a space or another such character"
            raise StoreError(errno.EINVAL, reason, url.root)


@contextmanager
def boto_errors(url: ObjectUrl) -> Iterator[None]:
    """Converts the errors of boto3 inside the `with` block to ConfigError and StoreError."""
    import botocore.exceptions as exceptions

    try:
        yield
    except exceptions.ProfileNotFound as error:
        raise ConfigError(
            f"{error}. `aws configure list-profiles` lists the profiles; --profile or AWS_PROFILE chooses one."
        ) from None
    except (exceptions.CredentialRetrievalError, exceptions.SSOError, exceptions.PartialCredentialsError) as error:
        raise StoreError(errno.EACCES, f"there are no credentials: {_reason(error)}", url.root) from None
    except StoreError:
        raise
    except OSError as error:  # a `credential_process` that does not exist
        reason = f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}"
        raise StoreError(errno.EACCES, f"the credentials cannot be read: {reason}", url.root) from None
    except (ValueError, exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise ConfigError(f"{url.root} cannot be reached: {_reason(error)}.") from None


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _reason(error: Exception) -> str:
    """The first line of an error of boto3, which may contain whatever a `credential_process` printed after it."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return (text or type(error).__name__)[:200]
