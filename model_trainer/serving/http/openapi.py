"""The OpenAPI document of the HTTP interface."""

from __future__ import annotations

from typing import Any

from model_trainer.serving.options import ServeOptions
from model_trainer.version import __version__

__all__ = ["openapi_document"]


def openapi_document(trained: Any, options: ServeOptions) -> dict[str, Any]:
    """Returns the document."""
    return {"openapi": "3.1.0", "info": {"title": "Model Trainer", "version": __version__}, "paths": {}}
