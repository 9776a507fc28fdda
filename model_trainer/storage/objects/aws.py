"""A session of boto3 for the configuration: it finds credentials, endpoint and region as AWS' own tools do."""

from __future__ import annotations

import errno
from typing import Any

from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.storage import configuration
from model_trainer.storage.objects.errors import StoreError

__all__ = ["aws_client"]

_NO_CREDENTIALS = (
    "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure` "
    "or `aws sso login`; for a public bucket set MODEL_TRAINER_S3_ANONYMOUS=1"
)


def aws_client(path: str, *, anonymous: bool | None = None) -> tuple[Any, Any]:
    """A boto3 session, which has credentials, and a client for S3.

    Args:
        path: for messages.
        anonymous: whether the client signs no request; None is what is configured.

    Raises:
        MissingExtra: boto3 is not installed.
        ConfigError: the profile does not exist, or its settings are wrong.
        StoreError: there are no credentials.
    """
    try:
        import boto3
        import botocore
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise MissingExtra("s3:// paths", "boto3", "s3") from None
    config = configuration.current()
    is_anonymous = config.anonymous if anonymous is None else anonymous
    try:
        session = boto3.Session(botocore_session=_core(botocore.session, config), region_name=config.region or None)
        client = session.client(
            "s3",
            endpoint_url=config.endpoint or None,
            region_name=session.region_name or "us-east-1",
            config=botocore.config.Config(
                signature_version=botocore.UNSIGNED if is_anonymous else None,
                connect_timeout=10,
                read_timeout=30,
                retries={"mode": "standard"},
            ),
        )
        credentials = None if is_anonymous else session.get_credentials()
    except botocore.exceptions.ProfileNotFound as error:
        raise ConfigError(
            f"{error}. `aws configure list-profiles` lists the profiles; AWS_PROFILE or --profile chooses one."
        ) from None
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise ConfigError(f"{path} cannot be reached: {error}") from None
    if not is_anonymous and credentials is None:
        raise StoreError(errno.EACCES, _NO_CREDENTIALS, path)
    return session, client


def _core(module: Any, config: configuration.Configuration) -> Any:
    """botocore's session. Only `--profile` wins over credentials in variables, as `aws --profile` does."""
    if config.profile_is_chosen:
        return module.Session(profile=config.profile)
    variables = ["AWS_DEFAULT_PROFILE", "AWS_PROFILE"]
    return module.Session(session_vars={"profile": (None, variables, config.profile or None, None)})
