"""The parts of an object store's URL, and messages for those that are mistyped."""

from __future__ import annotations

import re
from typing import NamedTuple

from model_trainer.errors import ConfigError

__all__ = ["MARKER", "SCHEMES", "ObjectUrl", "check_url", "masked_url", "parse_url"]

MARKER = ".folder"  # name of an object that makes an empty folder exist
SCHEMES = {"s3": "bucket", "gs": "bucket", "az": "container"}

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_MISTYPED = re.compile(r"(s3|s3a|s3n|gs|az|gcs|abfss?)(:/?(?!/)|:///+|//|;//|:\\\\?)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# The URLs with which AWS shows an object in a browser, and the ARN that names it in a policy.
_OF_AWS = re.compile(
    r"https?://([a-z0-9._-]+)\.s3[.-](?:[\w-]+\.)*amazonaws\.com(?:\.cn)?/(.*)"
    r"|https?://s3[.-](?:[\w-]+\.)*amazonaws\.com(?:\.cn)?/(.*)"
    r"|s3://([a-z0-9._-]+)\.s3[.-](?:[\w-]+\.)*amazonaws\.com(?:\.cn)?/(.*)"
    r"|arn:aws[\w-]*:s3:::(.*)"
)
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}


class ObjectUrl(NamedTuple):
    """Where an object is.

    Attributes:
        scheme: "s3", "gs" or "az".
        bucket: name of the bucket, or of the container.
        key: without a slash at its ends; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str

    @property
    def root(self) -> str:
        """URL of the bucket: "s3://photos"."""
        return f"{self.scheme}://{self.bucket}"


def parse_url(url: str) -> ObjectUrl:
    """Divides a URL into its parts; repeated slashes count as one.

    Example:
        >>> parse_url("s3://photos/train/cat/1.jpg")
        ObjectUrl(scheme='s3', bucket='photos', key='train/cat/1.jpg')

    Raises:
        ConfigError: it names no bucket, or one that cannot exist, or contains "..", credentials or control characters.
    """
    scheme, _, rest = url.partition("://")
    bucket, *names = rest.split("/")
    url = masked_url(url)
    kind = SCHEMES.get(scheme, "bucket")
    if not bucket:
        raise ConfigError(f"{url} names no {kind}. Expected {scheme}://{kind}/folder.")
    if not _BUCKET.fullmatch(bucket):
        if "@" in bucket:
            raise ConfigError(f"{url} contains credentials, which belong in ~/.aws/credentials, with `aws configure`.")
        raise ConfigError(
            f"{url} names the {kind} {bucket!r}, which cannot exist: names have 3 to 63 lower-case letters, digits, "
            "dots and hyphens."
        )
    if any(name in (".", "..") for name in names):
        raise ConfigError(f'{url} contains "." or "..", which object stores do not resolve. Write the whole path.')
    if _CONTROL.search(rest):
        raise ConfigError(f"{url!r} contains a control character, or is not UTF-8. Write the name of a key.")
    return ObjectUrl(scheme, bucket, "/".join(filter(None, names)))


def masked_url(url: str) -> str:
    """A URL for messages: without the user, password and signature that it may contain.

    Example:
        >>> masked_url("https://user:secret@host/x?X-Amz-Signature=0123")
        'https://****@host/x?X-Amz-Signature=****'
    """
    url = re.sub(r"(:/+)[^/\s]*@", r"\1****@", url)
    return re.sub(r"((?:sig|signature|credential|token|secret|password)=)[^&]*", r"\1****", url, flags=re.IGNORECASE)


def check_url(path: str) -> None:
    """Checks a path for typing errors: without it, "s3:/bucket", "s3//bucket" or "S3://bucket" would be a local path.

    Raises:
        ConfigError: `path` is probably a mistyped URL; the message gives the right one.
    """
    of_aws = _OF_AWS.fullmatch(path)
    if of_aws:
        right = "/".join(filter(None, of_aws.groups()))
        raise ConfigError(f"{masked_url(path)} is not a path. Did you mean s3://{right.partition('?')[0]}?")
    scheme, separator, rest = path.partition("://")
    if separator and not rest.startswith("/"):
        right = _OTHER_NAMES.get(scheme.lower(), scheme.lower())
        if right in SCHEMES and right != scheme:
            raise ConfigError(masked_url(f"{path} has the scheme {scheme!r}. Did you mean {right}://{rest}?"))
        if right in SCHEMES:
            parse_url(path)
        return
    mistyped = _MISTYPED.match(path)
    if mistyped:
        scheme = mistyped[1].lower()
        rest = path[mistyped.end() :].lstrip("/\\")
        raise ConfigError(
            masked_url(f"{path} looks like a URL. Did you mean {_OTHER_NAMES.get(scheme, scheme)}://{rest}?")
        )
