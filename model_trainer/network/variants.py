"""The two variants of EfficientNet B0 to B7: Keras builds one graph for ImageNet's weights and another without them.

The first has a second `Rescaling` after its `Normalization`, without which ImageNet's weights get inputs in another
range than in training. The weights themselves do not reveal which of the two graphs they belong to.

Source: https://github.com/tensorflow/tensorflow/issues/49930
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np

from model_trainer.network.graph import Substitute
from model_trainer.specs import ModelSpec
from model_trainer.specs.table import entry_of_class

__all__ = ["IMAGENET", "STDS", "add_rescaling", "has_variants", "variant_of_model"]

IMAGENET = "imagenet"

STDS = (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue; Keras' files contain them instead of variances


def has_variants(spec: ModelSpec) -> bool:
    """Whether Keras builds another graph of this class for ImageNet's weights."""
    entry = entry_of_class(spec.class_)
    return entry is not None and entry[0].startswith("efficientnetb")


def variant_of_model(spec: ModelSpec, model: keras.Model) -> str | None:
    """The variant of a model of the spec's class: "imagenet", or None for the plain graph."""
    layers = (layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    return IMAGENET if has_variants(spec) and any(np.ndim(layer.scale) for layer in layers) else None


def add_rescaling(substitute: Callable[[keras.Operation, str], Substitute]) -> Callable[..., Substitute]:
    """Wraps `substitute` so that a second `Rescaling` follows the `Normalization`."""

    def with_rescaling(operation: keras.Operation, name: str) -> Substitute:
        original = substitute(operation, name)
        if not isinstance(operation, keras.layers.Normalization):
            return original
        rescaling = keras.layers.Rescaling([1.0 / math.sqrt(std) for std in STDS], name=f"{name}_rescaling")
        layers = (*original.layers, rescaling)
        return Substitute(layers, lambda *args, **kwargs: rescaling(original.call(*args, **kwargs)))

    return with_rescaling
