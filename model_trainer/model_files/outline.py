"""Reads a network's Keras config as plain data: input size, backbone and head. Nothing in it is imported or called.

Keras' own loaders run what a config names. Here each layer of a head is looked up in a short list of built-in layers,
and its settings may be numbers, booleans and names only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from model_trainer.errors import ModelFileError
from model_trainer.specs.table import table_name_inside

__all__ = ["Outline", "make_layer", "read_outline"]

MAX_LAYERS = 5_000  # of a model; NASNetLarge has 1,041
MAX_HEAD_LAYERS, MAX_RESCALINGS = 64, 8
MAX_INPUT_SIDE = 2048

_POOLING = {"GlobalAveragePooling2D": ("keepdims",), "GlobalMaxPooling2D": ("keepdims",), "Flatten": ()}
_HEAD: dict[str, tuple[str, ...]] = {
    **_POOLING,
    "Dense": ("units", "activation", "use_bias"),
    "Dropout": ("rate",),
    "Activation": ("activation",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Softmax": (),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "LayerNormalization": ("axis", "epsilon", "center", "scale"),
}
_SCALING: dict[str, tuple[str, ...]] = {"Rescaling": ("scale", "offset"), "Normalization": ("axis", "mean", "variance")}
_ONLY_IN_TRAINING = {
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
    "GaussianNoise", "SpatialDropout2D", "RandomErasing", "RandomColorJitter",
}  # fmt: skip
_ACTIVATIONS = {
    "linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "elu", "selu", "gelu", "silu", "swish", "hard_sigmoid",
    "hard_swish", "hard_silu", "leaky_relu", "softplus",
}  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """The structure of a network.

    Attributes:
        size: input size `(height, width, channels)`; None if it accepts any.
        backbone: name of the model nested in it; empty if there is none.
        scaling: configs of layers before the backbone that change the images: `Rescaling`, `Normalization`.
        head: configs of the layers after the backbone's feature map.
        num_outputs: units of the last `Dense`; None if there is none.
        table_name: the model of keras.applications that it resembles; None if there is none.
        scales_inside: whether the backbone itself begins with `Rescaling` or `Normalization`.
        width: the `alpha` of a MobileNet, which is in its name; None for others.
    """

    size: tuple[int, int, int] | None
    backbone: str
    scaling: list[dict[str, Any]]
    head: list[dict[str, Any]]
    num_outputs: int | None
    table_name: str | None
    scales_inside: bool
    width: float | None


def read_outline(config: str) -> Outline | None:
    """Reads the outline of a network that, apart from its backbone, is a chain of layers.

    Args:
        config: the `model_config` of a `.h5` file, or the `config.json` of a `.keras` file.

    Returns:
        None if the network has another structure.
    """
    try:
        top = json.loads(config)
        layers = _layers(top)
        if len(layers) > MAX_LAYERS:
            return None
        nested = [layer for layer in layers if _is_model(layer) and not _is_head(layer)]
        head = _head(layers, is_nested=bool(nested))
        before = layers[: layers.index(nested[0])] if nested else _until_weights(layers)
        scaling = [layer for layer in before if layer["class_name"] in _SCALING]
        foreign = [
            layer["class_name"]
            for layer in before
            if layer["class_name"] not in {"InputLayer", *_SCALING, *_ONLY_IN_TRAINING}
        ]
        if len(nested) > 1 or head is None or len(scaling) > MAX_RESCALINGS or (nested and foreign):
            return None
        name = str(nested[0]["config"].get("name")) if nested else ""
        full_name = name or str(top["config"].get("name"))
        width = re.match(r"mobilenet(?:v2)?_(\d\.\d+)_", full_name)
        units = [layer["config"].get("units") for layer in head if layer["class_name"] == "Dense"]
        return Outline(
            size=_size(layers),
            backbone=name[:100],
            scaling=scaling,
            head=head,
            num_outputs=units[-1] if units and isinstance(units[-1], int) else None,
            table_name=table_name_inside(full_name),
            scales_inside=any(layer["class_name"] in _SCALING for layer in _layers(nested[0]))
            if nested
            else bool(scaling),
            width=None if width is None else float(width[1]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return None


def make_layer(layer: Mapping[str, Any]) -> keras.Layer:
    """Makes a layer from a config of `scaling` or `head`.

    Raises:
        ModelFileError: it has a setting that is not a plain value.
    """
    kind = layer["class_name"]
    config = layer["config"]
    settings = {name: config[name] for name in {**_HEAD, **_SCALING}[kind] if name in config}
    for name, value in settings.items():
        if name == "activation":
            value = settings[name] = _activation(value)
        is_plain = all(isinstance(each, (int, float, str)) or each is None for each in _as_list(value))
        if not is_plain or len(_as_list(value)) > 64:
            raise ModelFileError(f"its layer {str(config.get('name'))[:60]!r} has a {name} that is not a plain value")
    if kind in ("BatchNormalization", "LayerNormalization") and isinstance(settings.get("axis"), list):
        settings["axis"] = settings["axis"][0] if len(settings["axis"]) == 1 else settings["axis"]
    name = re.sub(r"[^\w.\-]", "_", str(config.get("name", kind.lower())), flags=re.ASCII)[:200]
    return getattr(keras.layers, kind)(**settings, name=name or kind.lower())


def _layers(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    config = model["config"]
    layers = config["layers"] if isinstance(config, dict) else config  # a list in Keras before 2.3
    for layer in layers:
        # A Sequential of a backbone and a head is often a layer of an empty model around it.
        if not isinstance(layer["config"], dict):
            raise TypeError
    return layers


def _is_model(layer: Mapping[str, Any]) -> bool:
    return layer["class_name"] in ("Functional", "Sequential", "Model")


def _is_head(layer: Mapping[str, Any]) -> bool:
    return all(each["class_name"] in {*_HEAD, "InputLayer"} for each in _layers(layer))


def _head(layers: Sequence[dict[str, Any]], is_nested: bool) -> list[dict[str, Any]] | None:
    """The layers from the nested backbone, or from the last pooling, to the output; None if they are not a chain."""
    head: list[dict[str, Any]] = []
    for index in range(len(layers) - 1, 0, -1):
        layer = layers[index]
        if _is_model(layer) and _is_head(layer):
            inner = [each for each in _layers(layer) if each["class_name"] != "InputLayer"]
            head = inner + head
        elif _is_model(layer):
            last = _layers(layer)[-1]
            has_pooling = any(each["class_name"] in _POOLING for each in head)
            return _pooled_first(head if has_pooling or last["class_name"] not in _POOLING else [last, *head])
        elif len(head) < MAX_HEAD_LAYERS and layer["class_name"] in _HEAD:
            head = [layer, *head]
        else:
            return None
        if not _follows(layer, layers[index - 1]):
            return None
        if not is_nested and any(each["class_name"] in _POOLING for each in head):
            return _pooled_first(head)
    return None


def _pooled_first(head: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """`head`, or None if a `Dense` precedes the pooling: on a whole feature map it could fill the memory."""
    for layer in head:
        if layer["class_name"] in _POOLING:
            return head if len(head) <= MAX_HEAD_LAYERS else None
        if layer["class_name"] == "Dense":
            return None
    return None


def _follows(layer: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a layer's only input is the layer before it; always true in a Sequential, which lists no inputs."""
    nodes = layer.get("inbound_nodes")
    if not nodes:
        return True
    name = before.get("name") or before["config"].get("name")
    if len(nodes) != 1:
        return False
    if isinstance(nodes[0], dict):  # Keras 3
        tensors = nodes[0]["args"]
        return len(tensors) == 1 and tensors[0]["config"]["keras_history"][0] == name
    return len(nodes[0]) == 1 and nodes[0][0][0] == name


def _until_weights(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    before: list[dict[str, Any]] = []
    for layer in layers:
        if layer["class_name"] not in {"InputLayer", *_SCALING, *_ONLY_IN_TRAINING}:
            break
        before.append(layer)
    return before


def _size(layers: Sequence[Mapping[str, Any]]) -> tuple[int, int, int] | None:
    for layer in layers:
        shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and all(type(each) is int for each in shape[1:]):
            is_image = all(0 < side <= MAX_INPUT_SIDE for side in shape[1:3]) and 0 < shape[3] <= 4
            return (shape[1], shape[2], shape[3]) if is_image else None
    return next((size for layer in layers if _is_model(layer) if (size := _size(_layers(layer)))), None)


def _activation(value: Any) -> str:
    if isinstance(value, dict):  # the form in which Keras 3 writes its own functions
        value = value.get("config")
    name = "linear" if value is None else str(value)
    if name not in _ACTIVATIONS:
        raise ModelFileError(f"its head has the activation {name[:60]!r}")
    return name


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
