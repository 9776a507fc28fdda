"""Locates the images of a manifest: joins its paths to their folder, and checks URLs for typing errors."""

from __future__ import annotations

import os
import posixpath
import re

from model_trainer.errors import ConfigError, DataError
from model_trainer.storage.configured_paths import configured_path
from model_trainer.storage.objects.urls import SCHEMES, parse_url

__all__ = ["URL_LIKE", "VALID_URL", "WITH_DOTS", "full_path"]

# Regular expressions for Python and for RE2, with which Arrow selects the few paths that need `full_path`.
VALID_URL = r"^(s3|gs|az)://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]/+[^/]"  # unless it is WITH_DOTS
URL_LIKE = r"(?i)^(s3|s3a|s3n|gs|gcs|az|abfss?)(:|;|//)"
WITH_DOTS = r"(^|/)\.\.?(/|$)"

_URL_LIKE, _WITH_DOTS = re.compile(URL_LIKE), re.compile(WITH_DOTS)
_ON_WINDOWS = os.name == "nt"


def full_path(path: str, root: str) -> str:
    """The path of an image; absolute paths and URLs of other storage systems are unchanged.

    Args:
        path: as written in the manifest, with "/".
        root: the folder to which it is relative, which ends with "/"; or "".

    Raises:
        DataError: it is a mistyped URL, names a bucket without an object, or leads out of the bucket of `root`.
    """
    if _URL_LIKE.match(path):
        return _url(path)
    if path.startswith("/") or "://" in path or (_ON_WINDOWS and os.path.isabs(path)):
        return path
    if root.partition("://")[0] in SCHEMES and _WITH_DOTS.search(path):
        return _without_dots(path, root)
    return root + path


def _url(path: str) -> str:
    try:
        url = configured_path(path)
        has_key = url.partition("://")[0] not in SCHEMES or bool(parse_url(url).key)
    except ConfigError as error:
        raise DataError(str(error)) from None
    if not has_key:
        raise DataError(f"{path} is a {SCHEMES[url.partition('://')[0]]}, not an image. Write the whole path.")
    return url


def _without_dots(path: str, root: str) -> str:
    """Joins as a file system does; object stores do not resolve "." and ".."."""
    scheme, _, rest = root.partition("://")
    bucket, _, folder = rest.partition("/")
    key = posixpath.normpath(folder + path)
    if key.split("/")[0] in (".", ".."):
        raise DataError(f"{path!r} leads out of the {SCHEMES[scheme]} of {root}. Write the whole path.")
    return f"{scheme}://{bucket}/{key}"
