"""Detects which of EfficientNet's two graphs the weights in a file belong to; see `network/variants.py`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from model_trainer.model_files.container import ModelFile, reading
from model_trainer.network.variants import IMAGENET, STDS, has_variants
from model_trainer.specs import ModelSpec

__all__ = ["variant_of_file"]


def variant_of_file(spec: ModelSpec, file: ModelFile) -> str | None:
    """The variant that a file's weights belong to, by its Keras config or else by its normalization statistics."""
    if not has_variants(spec):
        return None
    if file.config is not None:
        return IMAGENET if _has_row_of_scales(file.config) else None
    statistics = [array for array in file.scanned.arrays.values() if array.shape == (3,)]
    with reading(file.path):
        has_imagenet_stds = any(np.allclose(array.read(), STDS, atol=1e-6) for array in statistics)
    return IMAGENET if has_imagenet_stds else None


def _has_row_of_scales(config: str) -> bool:
    """Whether a `Rescaling` with a factor for each channel directly follows a `Normalization`."""
    try:
        todo: list[Any] = [json.loads(config)]
    except (ValueError, RecursionError):
        return False
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            for before, after in itertools.pairwise(value):
                if _class_of(before) == "Normalization" and _class_of(after) == "Rescaling":
                    settings = after.get("config")
                    if isinstance(settings, dict) and _is_row(settings.get("scale")):
                        return True
        todo += _inner(value)
    return False


def _class_of(value: Any) -> Any:
    return value.get("class_name") if isinstance(value, dict) else None


def _is_row(scale: Any) -> bool:
    if isinstance(scale, dict):  # the form in which Keras writes an array
        scale = (scale.get("config") or {}).get("value") if isinstance(scale.get("config"), dict) else None
    return isinstance(scale, list) and len(scale) == 3


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
