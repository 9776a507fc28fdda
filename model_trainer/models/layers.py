"""Which layers a declaration means, freezing them, and penalties on their weights."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import keras

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest
from model_trainer.models.network import L1, AnyNetwork, LayerNames

__all__ = ["add_regularizers", "find_layers", "freeze", "set_trainable"]


def find_layers(model: keras.Model, names: LayerNames, field: str) -> list[keras.Layer]:
    """The layers that `names` mean: positions in `model.layers`, names, or patterns such as "block1_*".

    Raises:
        ConfigError: one of them means no layer; `field` says where it was written.
    """
    found: dict[str, keras.Layer] = {}
    for name in names:
        if isinstance(name, int):
            if not -len(model.layers) <= name < len(model.layers):
                raise ConfigError(f"asks for layer {name}, but {model.name} has {len(model.layers)} layers.", field)
            matches = [model.layers[name]]
        else:
            matches = [layer for layer in model.layers if fnmatchcase(layer.name, name)]
        if not matches:
            known = [layer.name for layer in model.layers]
            raise ConfigError(f"names {name!r}, but {model.name} has no such layer.{nearest(str(name), known)}", field)
        found.update({layer.name: layer for layer in matches})
    return list(found.values())


def freeze(model: keras.Model, head: Iterable[str], network: AnyNetwork) -> list[str]:
    """Makes the declared layers untrainable and returns their names."""
    if network.freeze == "none":
        return []
    if network.freeze == "backbone":
        head = set(head)
        if not head:
            raise ConfigError(
                'is "backbone", but your own model has no head that we know of. Name the layers to freeze.',
                "network.freeze",
            )
        frozen = [layer for layer in model.layers if layer.name not in head]
    else:
        frozen = find_layers(model, network.freeze, "network.freeze")
    for layer in frozen:
        layer.trainable = False
    if not model.trainable_variables:
        raise ConfigError("leaves no layer to train.", "network.freeze")
    return [layer.name for layer in frozen]


def set_trainable(model: keras.Model, names: Iterable[str], trainable: bool) -> None:
    """Lets the layers of these names train from now on, or no longer."""
    for name in names:
        model.get_layer(name).trainable = trainable


def add_regularizers(model: keras.Model, network: AnyNetwork) -> None:
    """Puts the declared penalties on the layers' kernels; Keras then counts them in `model.losses`.

    Set on the variable itself: setting `layer.kernel_regularizer` after the layer is built has no effect, which is
    why others save the model to a temporary file and load it back.
    """
    for declared in network.regularize:
        make = keras.regularizers.L1 if isinstance(declared, L1) else keras.regularizers.L2
        layers = find_layers(model, declared.layers, "network.regularize")
        kernels = [v for layer in layers for v in layer.weights if v.name.endswith("kernel")]
        if not kernels:
            raise ConfigError(f"{declared!r} names no layer with a kernel.", "network.regularize")
        for kernel in kernels:
            kernel.regularizer = _Sum(kernel.regularizer, make(declared.strength))


class _Sum(keras.regularizers.Regularizer):
    """Two penalties on one variable."""

    def __init__(self, first: keras.regularizers.Regularizer | None, second: keras.regularizers.Regularizer) -> None:
        self.first = first
        self.second = second

    def __call__(self, x: object) -> object:
        return self.second(x) if self.first is None else self.first(x) + self.second(x)
