"""Finds the final activation of a network and removes it, so that the network ends in logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from model_trainer.errors import ConfigError
from model_trainer.network.portable import clone_layer, is_built_in

__all__ = ["FinalActivation", "find_final_activation", "without_activation"]

_REMOVABLE = ("softmax", "sigmoid")
_ACTIVATIONS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.PReLU)


@dataclass(frozen=True)
class FinalActivation:
    """The final activation of an output.

    Attributes:
        activation: the activation; None if the output is logits.
        logits: the tensor before the activation if that is a separate layer, otherwise the output itself.
        fused: the layer that computes both logits and activation, such as `Dense(10, activation="softmax")`.
    """

    activation: Literal["softmax", "sigmoid"] | None
    logits: keras.KerasTensor
    fused: keras.Layer | None = None


def find_final_activation(output: keras.KerasTensor, field: str) -> FinalActivation:
    """Finds the final activation of `output` in a flat graph of built-in layers.

    Args:
        output: an output of the graph.
        field: the option that declares the network, for messages.

    Raises:
        ConfigError: it is neither softmax nor sigmoid, or the output is computed from probabilities, so that the
            logits cannot be recovered.
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
        return FinalActivation(_removable(name, layer, field), inputs[0])
    if isinstance(layer, keras.layers.Identity):
        return find_final_activation(inputs[0], field)
    if isinstance(layer, _ACTIVATIONS):
        _removable(type(layer).__name__, layer, field)
    if not is_built_in(layer) and not getattr(layer, "weights", ()):
        raise ConfigError(
            f"ends in {layer.name}, which may return logits or probabilities. End your model in logits of a Dense "
            "layer, softmax or sigmoid.",
            field,
        )
    if name not in (None, "linear"):
        return FinalActivation(_removable(name, layer, field), output, layer)
    earlier = _earlier_activation(output)
    if earlier is not None:
        raise ConfigError(
            f"ends in {layer.name}, which is computed from the probabilities of {earlier.name}, so the logits that the "
            "loss needs cannot be recovered. End your model in logits, softmax or sigmoid.",
            field,
        )
    return FinalActivation(None, output)


def without_activation(
    ending: FinalActivation, names: Sequence[str]
) -> tuple[keras.KerasTensor, tuple[keras.Layer, keras.Layer] | None]:
    """Removes the final activation.

    The layer that computes the logits must be replaced if it contains the activation, or has the name of an output,
    which the new activation layer will have.

    Args:
        ending: the final activation.
        names: names of the network's outputs.

    Returns:
        The logits, and the replaced and the new layer, or None if no layer is replaced.
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
    """The name of a layer's activation in Keras; None if the layer has none.

    A user's own function may have the name of a Keras activation; it gets another name here.
    """
    activation = getattr(layer, "activation", None)
    if activation is None:
        return None
    name = str(getattr(activation, "__name__", type(activation).__name__))
    return name if getattr(keras.activations, name, None) is activation else f"{name} of your own"


def _removable(name: str | None, layer: Any, field: str) -> Literal["softmax", "sigmoid"]:
    """Returns `name` if the activation can be removed; raises ConfigError for any other."""
    if name == "softmax":
        return "softmax"
    if name == "sigmoid":
        return "sigmoid"
    raise ConfigError(
        f"ends in the activation {name!r} of {layer.name}, from which the logits that the loss needs cannot be "
        "recovered. End your model in logits, softmax or sigmoid.",
        field,
    )


def _earlier_activation(output: keras.KerasTensor, is_output: bool = True) -> Any:
    """The softmax or sigmoid that `output` is computed from without weights in between; None if there is none.

    An operation with any input that is not such an activation, such as a product of logits and a gate, does not count.
    """
    history = output._keras_history
    operation = history.operation
    gives_probabilities = isinstance(operation, keras.layers.Softmax) or _activation_name(operation) in _REMOVABLE
    if gives_probabilities and not is_output:
        return operation
    if getattr(operation, "weights", ()):
        return None
    inputs = operation._inbound_nodes[history.node_index].input_tensors
    activations = [_earlier_activation(each, is_output=False) for each in inputs]
    return activations[0] if activations and all(each is not None for each in activations) else None
