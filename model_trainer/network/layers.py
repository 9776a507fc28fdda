"""Selects layers by name or position, freezes them, and regularizes their weights."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import keras

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest
from model_trainer.network.portable import is_channel_scale
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.network import L1, AnyNetwork, LayerNames

__all__ = ["add_regularizers", "exempt_from_decay", "find_layers", "freeze", "set_trainable"]


def find_layers(network: TwoStageNetwork, names: LayerNames, field: str) -> list[str]:
    """Finds layers of `network.model`.

    Args:
        network: the network.
        names: positions in the `layers` of the original model, names, or patterns such as "block1_*". The name of a
            nested model selects all of its layers, which can be selected by their own names too.
        field: the option that lists the names, for messages.

    Returns:
        The names of the layers.

    Raises:
        ConfigError: one of `names` matches no layer.
    """
    title = network.model.name
    members = network.members
    layers: dict[str, None] = {}
    for name in names:
        if isinstance(name, int):
            count = len(network.positions)
            if not -count <= name < count:
                raise ConfigError(f"asks for layer {name}, but {title} has {count} layers.", field)
            matches = [network.positions[name]]
        else:
            matches = [original for original in members if fnmatchcase(original, name)]
        if not matches:
            raise ConfigError(f"names {name!r}, but {title} has no such layer.{nearest(str(name), members)}", field)
        layers.update(dict.fromkeys(layer for match in matches for layer in members.get(match, ())))
    return list(layers)


def freeze(model: keras.Model, network: TwoStageNetwork, declared: AnyNetwork) -> list[str]:
    """Freezes the declared layers of `model`.

    Args:
        model: `network.model`, or its training copy.
        network: the network whose layers are selected.
        declared: the options, of which `freeze` is used.

    Returns:
        The names of the frozen layers.

    Raises:
        ConfigError: a name matches no layer, or nothing is left to train.
    """
    if declared.freeze == "none":
        if not model.trainable_variables:
            raise ConfigError(
                f"is {network.model.name}, whose layers are all frozen; none is left to train.", "network"
            )
        return []
    if declared.freeze == "backbone":
        if not network.backbone.weights:
            raise ConfigError(
                f'is "backbone", but {network.model.name} has no weights before its head. Name the layers to freeze, '
                "or the last layer of the backbone: network.features.",
                "network.freeze",
            )
        frozen = list(network.backbone_layers)
    else:
        frozen = find_layers(network, declared.freeze, "network.freeze")
    set_trainable(model, frozen, False)
    if not model.trainable_variables:
        raise ConfigError("leaves no layer to train.", "network.freeze")
    return frozen


def set_trainable(model: keras.Model, names: Iterable[str], trainable: bool) -> None:
    """Sets `trainable` of the layers with these names."""
    for name in names:
        model.get_layer(name).trainable = trainable


def add_regularizers(model: keras.Model, network: TwoStageNetwork, declared: AnyNetwork) -> None:
    """Adds the declared L1 and L2 penalties to the layers' kernels; Keras then counts them in `model.losses`.

    They are set on the variables, because setting `layer.kernel_regularizer` after the layer is built has no effect.

    Args:
        model: `network.model`, or its training copy.
        network: the network whose layers are selected.
        declared: the options, of which `regularize` is used.

    Raises:
        ConfigError: a name matches no layer, or a penalty no kernel.
    """
    for penalty in declared.regularize:
        make = keras.regularizers.L1 if isinstance(penalty, L1) else keras.regularizers.L2
        layers = map(model.get_layer, find_layers(network, penalty.layers, "network.regularize"))
        kernels = [
            v for layer in layers if not is_channel_scale(layer) for v in layer.weights if v.name.endswith("kernel")
        ]
        if not kernels:
            raise ConfigError(f"{penalty!r} selects no layer with a kernel.", "network.regularize")
        for kernel in kernels:
            kernel.regularizer = _Sum(kernel.regularizer, make(penalty.strength))


def exempt_from_decay(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables to exclude from weight decay: biases, channel scales, parameters of normalization layers.

    timm excludes variables with one dimension and those named bias. Here all parameters of normalization layers and
    PReLU are excluded too, which can have more dimensions.
    """
    layers = [each for each in model._flatten_layers() if isinstance(each, _WITHOUT_KERNELS) or is_channel_scale(each)]
    excluded = {id(variable) for layer in layers for variable in layer.weights}
    return [each for each in model.weights if len(each.shape) < 2 or each.name == "bias" or id(each) in excluded]


_WITHOUT_KERNELS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
)


class _Sum(keras.regularizers.Regularizer):
    """The sum of two penalties on one variable."""

    def __init__(self, first: keras.regularizers.Regularizer | None, second: keras.regularizers.Regularizer) -> None:
        self.first = first
        self.second = second

    def __call__(self, x: object) -> object:
        return self.second(x) if self.first is None else self.first(x) + self.second(x)
