"""Spec and head to a plain functional float32 `keras.Model`: the one that is saved."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import keras

from model_trainer.config import Call
from model_trainer.dotted import import_dotted
from model_trainer.errors import ConfigError
from model_trainer.models.network import AnyNetwork, Network, OwnModel
from model_trainer.specs import ModelSpec, minimum_size
from model_trainer.tasks.task import Task

__all__ = ["Built", "build_backbone", "build_network"]


@dataclass(frozen=True)
class Built:
    """A network and where its head begins.

    Attributes:
        model: float32 `(batch, height, width, channels)` to one array `(batch, num_classes)` for each output.
        head: names of the layers that do not belong to the backbone.
    """

    model: keras.Model
    head: tuple[str, ...]


def build_network(
    spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int, weights: str | None = None
) -> Built:
    """Builds the network with random weights, or its backbone with `weights="imagenet"`.

    Raises:
        ConfigError: the class cannot be imported or builds no Keras model, the size is too small for it, or the
            user's own model does not fit the spec or the classes.
    """
    if isinstance(network, OwnModel):
        return _own_model(network, spec, task, num_classes)
    if not isinstance(network, Network):
        raise ConfigError(f"should be a Network or OwnModel, got {network!r}.", "network")
    backbone = build_backbone(spec, weights)
    names = [output.name for output in task.outputs] or [""]
    features = _pooled(backbone.output, network.pooling)
    for number, units in enumerate(network.dense, start=1):
        features = keras.layers.Dense(units, activation="relu", name=f"head_dense_{number}")(features)
        if network.dropout_rate:
            features = keras.layers.Dropout(network.dropout_rate, name=f"head_dropout_{number}")(features)
    if network.dropout_rate and not network.dense:
        features = keras.layers.Dropout(network.dropout_rate, name="head_dropout")(features)
    activation = "linear" if task.head_activation == "none" else task.head_activation
    outputs = []
    for name in names:
        logits = keras.layers.Dense(num_classes, name=f"logits_{name}".rstrip("_"))(features)
        outputs.append(keras.layers.Activation(activation, name=name or "probabilities")(logits))
    model = keras.Model(backbone.input, outputs if task.outputs else outputs[0], name=backbone.name)
    below = {layer.name for layer in backbone.layers}
    return Built(model, tuple(layer.name for layer in model.layers if layer.name not in below))


def build_backbone(spec: ModelSpec, weights: str | None) -> keras.Model:
    """The spec's class without its top, for images of `target_size`."""
    if spec.class_ is None:
        raise ConfigError(
            'is missing: say which network, such as "class": "keras.applications.vgg19.VGG19", '
            "or give your own model as `network`.",
            "spec.class",
        )
    least = minimum_size(spec.class_)
    if least is not None and min(spec.target_size[:2]) < least:
        height, width, _ = spec.target_size
        raise ConfigError(
            f"should be at least {least} x {least} for {spec.class_}, got {height} x {width}.", "spec.target_size"
        )
    make = import_dotted(spec.class_)
    arguments: dict[str, Any] = dict(spec.kwargs)
    accepted = _parameters(make)
    for name, value in (("include_top", False), ("weights", weights), ("input_shape", spec.target_size)):
        if name in accepted or "**" in accepted:
            arguments.setdefault(name, value)
    try:
        model = make(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{spec.class_} refuses {_shown(arguments)}: {_first_line(error)}", "spec") from error
    if not isinstance(model, keras.Model):
        raise ConfigError(f"{spec.class_} builds no Keras model but {type(model).__name__}.", "spec.class")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(f"{spec.class_} should have one input and one output to carry a head.", "spec.class")
    return model


def _pooled(features: Any, pooling: str) -> Any:
    if len(features.shape) == 2:  # the user's own function pooled already
        return features
    if pooling == "flatten":
        return keras.layers.Flatten(name="head_flatten")(features)
    layer = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
    return layer(name="head_pooling")(features)


def _own_model(network: OwnModel, spec: ModelSpec, task: Task, num_classes: int) -> Built:
    model = network.model.make() if isinstance(network.model, Call) else network.model.value
    if isinstance(model, keras.Sequential):
        if not model.built:
            model.build((None, *spec.target_size))
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model):
        raise ConfigError(f"should be a Keras model, got {type(model).__name__}.", "network.model")
    if not hasattr(model, "inputs") or not hasattr(model, "operations"):
        raise ConfigError(
            "should be a functional or Sequential model; a subclassed one cannot be saved so that plain Keras loads "
            "it. Wrap its layers: keras.Model(inputs, outputs).",
            "network.model",
        )
    wanted = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) != 1 or any(w not in (None, got) for w, got in zip(wanted, spec.target_size, strict=False)):
        raise ConfigError(f"takes images of {wanted}, but `spec.target_size` is {spec.target_size}.", "network.model")
    names = tuple(output.name for output in task.outputs)
    if len(model.outputs) != max(1, len(names)) or (names and set(names) != set(model.output_names)):
        raise ConfigError(
            f"has the outputs {list(model.output_names)}, but `task.outputs` names {list(names)}.", "network.model"
        )
    if names and names != tuple(model.output_names):
        by_name = dict(zip(model.output_names, model.outputs, strict=True))
        model = keras.Model(model.inputs[0], [by_name[name] for name in names], name=model.name)
    for output in model.outputs:
        if output.shape[-1] != num_classes:
            raise ConfigError(
                f"gives {output.shape[-1]} values for each image, but the data has {num_classes} classes.",
                "network.model",
            )
    return Built(model, ())


def _parameters(make: Any) -> set[str]:
    kinds = inspect.signature(make).parameters.values()
    named = {kind.name for kind in kinds if kind.kind is not kind.VAR_KEYWORD}
    return named | ({"**"} if any(kind.kind is kind.VAR_KEYWORD for kind in kinds) else set())


def _shown(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
