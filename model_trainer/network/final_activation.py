"""The activation that a network ends in: found, compared with the task, and taken off, so that logits are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from model_trainer.errors import ConfigError
from model_trainer.network.portable import clone_layer, is_built_in

__all__ = ["FinalActivation", "find_final_activation", "without_activation"]

_IN_THE_END = ("softmax", "sigmoid")
_ACTIVATIONS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.PReLU)


@dataclass(frozen=True)
class FinalActivation:
    """How an output of a network comes about.

    Attributes:
        activation: that it went through last; None where it is logits.
        logits: the tensor before an activation that is a layer of its own, otherwise the output itself.
        fused: the layer that computes logits and activation in one, such as `Dense(10, activation="softmax")`.
    """

    activation: Literal["softmax", "sigmoid"] | None
    logits: keras.KerasTensor
    fused: keras.Layer | None = None


def find_final_activation(output: keras.KerasTensor, field: str) -> FinalActivation:
    """What `output`, of a flat graph of built-in layers, ends in.

    Raises:
        ConfigError: it ends in another activation, or in something that was made of probabilities, from which there is
            no way back to logits; `field` says where the network was declared.
    """
    node = output._keras_history.operation._inbound_nodes[output._keras_history.node_index]
    layer = node.operation
    inputs = node.input_tensors
    if isinstance(layer, keras.layers.Softmax):
        if layer.axis not in (-1, len(output.shape) - 1):
            raise ConfigError(f"ends in a softmax over axis {layer.axis} instead of the classes.", field)
        return FinalActivation("softmax", inputs[0])
    name = _activation_name(layer)
    if isinstance(layer, keras.layers.Activation):
        if name == "linear":
            return find_final_activation(inputs[0], field)
        return FinalActivation(_known(name, layer, field), inputs[0])
    if isinstance(layer, keras.layers.Identity):
        return find_final_activation(inputs[0], field)
    if isinstance(layer, _ACTIVATIONS):
        _known(type(layer).__name__, layer, field)
    if not is_built_in(layer) and not getattr(layer, "weights", ()):
        raise ConfigError(
            f"ends in {layer.name}, of which nothing tells whether it gives logits or probabilities. End your model in "
            "logits of a Dense layer, softmax or sigmoid.",
            field,
        )
    if name not in (None, "linear"):
        return FinalActivation(_known(name, layer, field), output, layer)
    squashed = _squashed_before(output)
    if squashed is not None:
        raise ConfigError(
            f"ends in {layer.name}, which is computed from the probabilities of {squashed.name}; from there no way "
            "leads back to the logits that are trained. End your model in logits, softmax or sigmoid.",
            field,
        )
    return FinalActivation(None, output)


def without_activation(
    ending: FinalActivation, names: Sequence[str]
) -> tuple[keras.KerasTensor, tuple[keras.Layer, keras.Layer] | None]:
    """The logits of an ending; where the layer that gives them must be another one, the old and the new layer too.

    It must where it has the activation inside, or the name of an output, which the activation will have.

    Args:
        names: of the network's outputs.
    """
    history = ending.logits._keras_history
    old = ending.fused or history.operation
    if ending.fused is None and not (old.name in names and isinstance(old, keras.Layer)):
        return ending.logits, None
    changes = {} if ending.fused is None else {"activation": "linear"}
    new = clone_layer(old, f"{old.name}_logits" if old.name in names else old.name, "float32", **changes)
    arguments = old._inbound_nodes[history.node_index].arguments
    return new(*arguments.args, **arguments.kwargs), (old, new)


def _activation_name(layer: Any) -> str | None:
    """Of the activation that a layer ends with, as Keras calls it; None where the layer has none.

    A function of the user's own may have the name of Keras' own; it gets another here.
    """
    activation = getattr(layer, "activation", None)
    if activation is None:
        return None
    name = str(getattr(activation, "__name__", type(activation).__name__))
    return name if getattr(keras.activations, name, None) is activation else f"{name} of your own"


def _known(name: str | None, layer: Any, field: str) -> Literal["softmax", "sigmoid"]:
    """`name`, which is one of the two that can be taken off; raises ConfigError at any other."""
    if name == "softmax":
        return "softmax"
    if name == "sigmoid":
        return "sigmoid"
    raise ConfigError(
        f"ends in the activation {name!r} of {layer.name}, from which no way leads back to the logits that are "
        "trained. End your model in logits, softmax or sigmoid.",
        field,
    )


def _squashed_before(output: keras.KerasTensor, is_output: bool = True) -> Any:
    """The softmax or sigmoid that `output` is computed from with no weights in between; None where there is none.

    What has another input besides, such as logits that are multiplied with a gate, does not count.
    """
    history = output._keras_history
    operation = history.operation
    is_squashing = isinstance(operation, keras.layers.Softmax) or _activation_name(operation) in _IN_THE_END
    if is_squashing and not is_output:
        return operation
    if getattr(operation, "weights", ()):
        return None
    inputs = operation._inbound_nodes[history.node_index].input_tensors
    found = [_squashed_before(each, is_output=False) for each in inputs]
    return found[0] if found and all(each is not None for each in found) else None
