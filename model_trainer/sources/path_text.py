"""The type of fields that are paths: a string, or any `os.PathLike`; a mistyped URL is an error."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from model_trainer.storage.configured_paths import configured_path

__all__ = ["PathText"]


def _as_text(path: object) -> object:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


PathText = Annotated[str, BeforeValidator(_as_text), AfterValidator(configured_path)]
