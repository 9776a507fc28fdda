"""Paths as users write them: mistyped URLs are errors, and s3:///train is in the configured bucket."""

from __future__ import annotations

import re

from model_trainer.errors import ConfigError
from model_trainer.storage import configuration
from model_trainer.storage.objects.urls import check_url

__all__ = ["configured_path"]

_OF_CONFIGURED_BUCKET = re.compile(r"s3:///(?!/)(.*)", re.DOTALL)


def configured_path(path: str) -> str:
    """Inserts the configured bucket into a path such as s3:///train; returns other paths unchanged.

    Raises:
        ConfigError: `path` is probably a mistyped URL, or no bucket is configured; the message gives the right one.
    """
    match = _OF_CONFIGURED_BUCKET.fullmatch(path)
    if match is None:
        check_url(path)
        return path
    bucket = configuration.current().bucket
    if not bucket:
        raise ConfigError(
            f"{path} is in the configured bucket, and none is configured. Did you mean s3://{match[1]}? Otherwise set "
            "`bucket` in the table [s3] of model-trainer.toml, or MODEL_TRAINER_S3_BUCKET."
        )
    return f"s3://{bucket}/{match[1]}"
