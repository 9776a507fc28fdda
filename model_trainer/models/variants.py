"""EfficientNet B0 to B7, of which Keras builds one graph for ImageNet's weights and another for none.

The first has a second `Rescaling` behind its `Normalization`, without which ImageNet's weights see other numbers than
they were trained on. Nothing in the weights says which of the two they belong to.

Source: https://github.com/tensorflow/tensorflow/issues/49930
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from model_trainer.models.container import ModelFile, reading
from model_trainer.models.graph import Substitute
from model_trainer.specs import ModelSpec
from model_trainer.specs.table import entry_of_class

__all__ = ["IMAGENET", "add_rescaling", "has_variants", "variant_of_file", "variant_of_model"]

IMAGENET = "imagenet"

_STDS = (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue; Keras' files hold them in place of variances


def has_variants(spec: ModelSpec) -> bool:
    """Whether Keras builds another graph of this class for ImageNet's weights."""
    named = entry_of_class(spec.class_)
    return named is not None and named[0].startswith("efficientnetb")


def variant_of_model(spec: ModelSpec, model: keras.Model) -> str | None:
    """Which graph a model of the spec's class has: "imagenet", or None for the plain one."""
    layers = (layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    return IMAGENET if has_variants(spec) and any(np.ndim(layer.scale) for layer in layers) else None


def variant_of_file(spec: ModelSpec, file: ModelFile) -> str | None:
    """Which graph the weights of a file belong to, by what Keras wrote about it, otherwise by its statistics."""
    if not has_variants(spec):
        return None
    if file.config is not None:
        return IMAGENET if _has_row_of_scales(file.config) else None
    statistics = [array for array in file.scanned.arrays.values() if array.shape == (3,)]
    with reading(file.path):
        is_of_imagenet = any(np.allclose(array.read(), _STDS, atol=1e-6) for array in statistics)
    return IMAGENET if is_of_imagenet else None


def add_rescaling(substitute: Callable[[keras.Operation, str], Substitute]) -> Callable[..., Substitute]:
    """The same substitutes, with the second `Rescaling` behind the `Normalization`."""

    def with_rescaling(operation: keras.Operation, name: str) -> Substitute:
        made = substitute(operation, name)
        if not isinstance(operation, keras.layers.Normalization):
            return made
        rescaling = keras.layers.Rescaling([1.0 / math.sqrt(std) for std in _STDS], name=f"{name}_rescaling")
        return Substitute((*made.layers, rescaling), lambda *args, **kwargs: rescaling(made.call(*args, **kwargs)))

    return with_rescaling


def _has_row_of_scales(config: str) -> bool:
    """Whether a `Rescaling` with a factor for each channel comes right after a `Normalization`."""
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
    if isinstance(scale, dict):  # as Keras writes an array
        scale = (scale.get("config") or {}).get("value") if isinstance(scale.get("config"), dict) else None
    return isinstance(scale, list) and len(scale) == 3


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
