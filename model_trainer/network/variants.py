"""EfficientNet B0 to B7, of which Keras builds one graph for ImageNet's weights and another for none.

The first has a second `Rescaling` behind its `Normalization`, without which ImageNet's weights see other numbers than
they were trained on. Nothing in the weights says which of the two they belong to.

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

STDS = (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue; Keras' files hold them in place of variances


def has_variants(spec: ModelSpec) -> bool:
    """Whether Keras builds another graph of this class for ImageNet's weights."""
    named = entry_of_class(spec.class_)
    return named is not None and named[0].startswith("efficientnetb")


def variant_of_model(spec: ModelSpec, model: keras.Model) -> str | None:
    """Which graph a model of the spec's class has: "imagenet", or None for the plain one."""
    layers = (layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    return IMAGENET if has_variants(spec) and any(np.ndim(layer.scale) for layer in layers) else None


def add_rescaling(substitute: Callable[[keras.Operation, str], Substitute]) -> Callable[..., Substitute]:
    """The same substitutes, with the second `Rescaling` behind the `Normalization`."""

    def with_rescaling(operation: keras.Operation, name: str) -> Substitute:
        made = substitute(operation, name)
        if not isinstance(operation, keras.layers.Normalization):
            return made
        rescaling = keras.layers.Rescaling([1.0 / math.sqrt(std) for std in STDS], name=f"{name}_rescaling")
        return Substitute((*made.layers, rescaling), lambda *args, **kwargs: rescaling(made.call(*args, **kwargs)))

    return with_rescaling
