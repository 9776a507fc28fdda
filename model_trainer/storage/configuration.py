"""What is configured about storages, apart from any run: credentials, endpoint, region and cache.

Values come from environment variables and from `model-trainer.toml`; `current()` returns them.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

__all__ = ["Configuration", "current"]


@dataclass(frozen=True)
class Configuration:
    """Settings of storages.

    Attributes:
        profile: a profile of `~/.aws/config`; "" means the default one.
        endpoint: URL of an S3 server; "" means that of AWS, or that of the profile.
        region: "" means that of the profile.
        anonymous: whether requests are unsigned, for public buckets.
        cache_folder: local folder of cached objects.
        cache_bytes: its maximum size; 0 caches nothing.
        listing_seconds: how long the list of the objects in a folder is kept and used again.
        retry_seconds: how long a request is repeated while a store does not answer.
    """

    profile: str = ""
    endpoint: str = ""
    region: str = ""
    anonymous: bool = False
    cache_folder: str = os.path.expanduser("~/.cache/model_trainer")
    cache_bytes: int = 20_000_000_000
    listing_seconds: float = 60.0
    retry_seconds: float = 60.0


@functools.cache
def current() -> Configuration:
    """The configuration of this process."""
    environ = os.environ
    return Configuration(
        profile=environ.get("AWS_PROFILE", ""),
        endpoint=environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or "",
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "",
        cache_folder=environ.get("MODEL_TRAINER_CACHE") or os.path.expanduser("~/.cache/model_trainer"),
    )
