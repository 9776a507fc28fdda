"""The settings of storages: names in `model-trainer.toml`, environment variables, options, and checks of the values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from model_trainer.errors import ConfigError
from model_trainer.storage.objects.urls import check_url

__all__ = ["SETTINGS", "Setting"]

Parse = Callable[[Any], Any]

_SIZE = r"\s*(\d[\d_]{0,15}(?:\.\d+)?)\s*([KMGT]?I?B)?\s*"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: in the file, with its table: "s3.profile".
        field: name of its field in `Configuration`.
        variables: the environment variables that set it; the first that is set and not empty applies.
        parse: checks a value from the file, or text from a variable or option; raises ValueError("should be ...").
        option: of the command line; "" if there is none.
        metavar, help: of the option, for `--help`.
    """

    name: str
    field: str
    variables: tuple[str, ...]
    parse: Parse
    option: str = ""
    metavar: str = ""
    help: str = ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('should be text in quotes, such as "research"')
    return value


def _bucket(value: Any) -> str:
    name = _text(value).removeprefix("s3://").rstrip("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", name):
        raise ValueError('should be the name of a bucket, such as "photos"')
    return name


def _endpoint(value: Any) -> str:
    text = _text(value)
    if "@" in text or "?" in text:  # what could be a secret is not repeated
        raise _SecretError(
            "should be a URL without user and password, and without a query; credentials belong in ~/.aws/credentials"
        )
    problem = ValueError('should be a URL of a server, such as "https://minio.example.org:9000"')
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.fragment
    except ValueError:  # a port that is not a number, or half an IPv6 address
        raise problem from None
    if not is_right:
        raise problem
    return text.rstrip("/")


def _folder(value: Any) -> str:
    text = _text(value)
    if "://" in text or "\0" in text or not text.strip():
        raise ValueError("should be a folder on the local disk")
    return os.path.expanduser(text)


def _path(value: Any) -> str:
    text = _text(value)
    if "\0" in text or not text.strip():
        raise ValueError("should be a folder, or a URL in an object store")
    try:
        check_url(text)
    except ConfigError as error:
        raise _SecretError(f"should be a folder, or a URL in an object store: {str(error).rstrip('.')}") from None
    return text if "://" in text else os.path.expanduser(text)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("should be true or false")


def _seconds(value: Any) -> float:
    try:
        seconds = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not 0 <= seconds <= 86_400:
        raise ValueError("should be seconds, 0 to 86400")
    return seconds


def _size(value: Any) -> int:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match = re.fullmatch(_SIZE, text.upper()) if isinstance(text, str) else None
    if match is None or (match[2] or "") not in _UNITS:
        raise ValueError('should be a size, such as "200 GB", or a number of bytes')
    return int(float(match[1]) * _UNITS[match[2] or ""])


class _SecretError(ValueError):
    """Its value must not be added to a message, because it may be a secret, or because the message contains it."""

    is_secret = True


SETTINGS = (
    Setting(
        "s3.profile", "profile", ("AWS_DEFAULT_PROFILE", "AWS_PROFILE"), _text,
        "--profile", "NAME", "Profile of ~/.aws/config, which has the credentials.",
    ),
    Setting(
        "s3.endpoint", "endpoint", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), _endpoint,
        "--endpoint-url", "URL", "S3 server, if it is not that of AWS.",
    ),
    Setting(
        "s3.region", "region", ("AWS_REGION", "AWS_DEFAULT_REGION"), _text,
        "--region", "NAME", "Region of the buckets, such as eu-central-1.",
    ),
    Setting("s3.bucket", "bucket", ("MODEL_TRAINER_S3_BUCKET",), _bucket),
    Setting("s3.anonymous", "anonymous", ("MODEL_TRAINER_S3_ANONYMOUS",), _switch),
    Setting("s3.retry_seconds", "retry_seconds", ("MODEL_TRAINER_S3_RETRY_SECONDS",), _seconds),
    Setting("cache.folder", "cache_folder", ("MODEL_TRAINER_CACHE",), _folder),
    Setting("cache.size", "cache_bytes", ("MODEL_TRAINER_CACHE_SIZE",), _size),
    Setting("cache.listing_seconds", "listing_seconds", ("MODEL_TRAINER_CACHE_LISTING_SECONDS",), _seconds),
    Setting("output_dir", "output_dir", ("MODEL_TRAINER_OUTPUT_DIR",), _path),
)  # fmt: skip
