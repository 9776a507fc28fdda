"""Which layers a declaration means, freezing them, and penalties on their weights."""

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
    """The names of the layers of `network.model` that `names` mean.

    Args:
        names: positions in the `layers` of the model as its author built it, names, or patterns such as "block1_*". The
            name of a nested model means all of its layers, which have their own names too.

    Raises:
        ConfigError: one of them means no layer; `field` says where it was written.
    """
    title = network.model.name
    members = network.members
    found: dict[str, None] = {}
    for name in names:
        if isinstance(name, int):
            count = len(network.positions)
            if not -count <= name < count:
                raise ConfigError(f"asks for layer {name}, but {title} has {count} layers.", field)
            matches = [network.positions[name]]
        else:
            matches = [known for known in members if fnmatchcase(known, name)]
        if not matches:
            raise ConfigError(f"names {name!r}, but {title} has no such layer.{nearest(str(name), members)}", field)
        found.update(dict.fromkeys(layer for match in matches for layer in members.get(match, ())))
    return list(found)


def freeze(model: keras.Model, network: TwoStageNetwork, declared: AnyNetwork) -> list[str]:
    """Makes the declared layers of `model` untrainable and returns their names.

    Args:
        model: `network.model`, or its training copy.
    """
    if declared.freeze == "none":
        if not model.trainable_variables:
            raise ConfigError(
                f"is {network.model.name}, of which all layers are frozen; none is left to train.", "network"
            )
        return []
    if declared.freeze == "backbone":
        if not network.backbone.weights:
            raise ConfigError(
                f'is "backbone", but nothing in {network.model.name} has weights before its head. Name the layers to '
                "freeze, or the one that the backbone ends with: network.features.",
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
    """Lets the layers of these names train from now on, or no longer."""
    for name in names:
        model.get_layer(name).trainable = trainable


def add_regularizers(model: keras.Model, network: TwoStageNetwork, declared: AnyNetwork) -> None:
    """Puts the declared penalties on the layers' kernels; Keras then counts them in `model.losses`.

    Args:
        model: `network.model`, or its training copy.

    Set on the variable itself: setting `layer.kernel_regularizer` after the layer is built has no effect, which is
    why others save the model to a temporary file and load it back.
    """
    for penalty in declared.regularize:
        make = keras.regularizers.L1 if isinstance(penalty, L1) else keras.regularizers.L2
        layers = map(model.get_layer, find_layers(network, penalty.layers, "network.regularize"))
        kernels = [
            v for layer in layers if not is_channel_scale(layer) for v in layer.weights if v.name.endswith("kernel")
        ]
        if not kernels:
            raise ConfigError(f"{penalty!r} names no layer with a kernel.", "network.regularize")
        for kernel in kernels:
            kernel.regularizer = _Sum(kernel.regularizer, make(penalty.strength))


def exempt_from_decay(model: keras.Model) -> list[keras.Variable]:
    """Variables that weight decay should spare: biases, the parameters of normalisation, and factors of channels.

    timm's rule is that all are spared which have one dimension or are called a bias; here layers of normalisation and
    PReLU are, too, whose parameters can have more.
    """
    layers = [each for each in model._flatten_layers() if isinstance(each, _WITHOUT_KERNELS) or is_channel_scale(each)]
    spared = {id(variable) for layer in layers for variable in layer.weights}
    return [each for each in model.weights if len(each.shape) < 2 or each.name == "bias" or id(each) in spared]


_WITHOUT_KERNELS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
)


class _Sum(keras.regularizers.Regularizer):
    """Two penalties on one variable."""

    def __init__(self, first: keras.regularizers.Regularizer | None, second: keras.regularizers.Regularizer) -> None:
        self.first = first
        self.second = second

    def __call__(self, x: object) -> object:
        return self.second(x) if self.first is None else self.first(x) + self.second(x)
