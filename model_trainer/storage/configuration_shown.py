"""The configuration for people to read: every value and where it comes from, with secrets masked."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from model_trainer.errors import ModelTrainerError
from model_trainer.storage.configuration import all_values, current

__all__ = ["ShownValue", "masked", "shown_configuration"]

_VARIABLES = (
    "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "MODEL_TRAINER_CONFIG", "MODEL_TRAINER_MAX_PIXELS",
)  # fmt: skip
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MODEL_TRAINER_TOKEN")


class ShownValue(NamedTuple):
    """One line of `model-trainer config`."""

    name: str
    value: Any
    source: str


def shown_configuration() -> list[ShownValue]:
    """Every setting; the variables that are set; then the credentials, endpoint and region that boto3 resolves.

    Raises:
        ConfigError: a value is wrong.
    """
    rows = [ShownValue(each.setting.name, each.value, each.source) for each in all_values()]
    environ = os.environ
    rows += [ShownValue(name, environ[name], name) for name in _VARIABLES if environ.get(name)]
    if environ.get("AWS_ACCESS_KEY_ID"):
        rows.append(ShownValue("AWS_ACCESS_KEY_ID", masked(environ["AWS_ACCESS_KEY_ID"]), "AWS_ACCESS_KEY_ID"))
    rows += [ShownValue(name, "****", name) for name in _SECRETS if environ.get(name)]
    return rows + _resolved()


def masked(secret: str) -> str:
    """Masks an access key but for its last 4 characters, which AWS' own tools show too; a short one completely.

    Example:
        >>> masked("AKIAIOSFODNN7EXAMPLE")
        '****MPLE'
    """
    return "****" + (secret[-4:] if len(secret) >= 16 else "")


def _resolved() -> list[ShownValue]:
    """What a request would use, after profiles and roles; the reason if that cannot be resolved."""
    from model_trainer.storage.objects.credentials import boto_errors, new_client, new_session
    from model_trainer.storage.objects.urls import ObjectUrl

    url = ObjectUrl("s3", "bucket", "")
    try:
        session = new_session(url)
        client = new_client(url, session)
        with boto_errors(url):
            credentials = None if current().anonymous else session.get_credentials()
            access_key = None if credentials is None else credentials.get_frozen_credentials().access_key
    except (ModelTrainerError, ImportError) as error:
        return [ShownValue("credentials", None, str(error))]
    source = "anonymous" if current().anonymous else "none found: see `aws configure`, `aws sso login`"
    if credentials is not None:
        source = f"found by boto3: {credentials.method}"
    key = masked(access_key) if access_key else None
    return [
        ShownValue("credentials", key, source),
        ShownValue("endpoint in use", client.meta.endpoint_url, "the settings above and the profile"),
        ShownValue("region in use", client.meta.region_name, "the settings above and the profile"),
    ]
