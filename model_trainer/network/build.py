"""Builds the network that is saved: a backbone from a spec and a head, in float32 and of built-in layers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from model_trainer.dotted import import_dotted
from model_trainer.errors import ConfigError
from model_trainer.network.graph import assign_weights, in_float32, rebuild_graph
from model_trainer.network.own_model import build_own_network
from model_trainer.network.portable import needs_rebuilding, portable
from model_trainer.network.stages import PROBABILITIES, TwoStageNetwork, join_stages
from model_trainer.network.variants import IMAGENET, add_rescaling, has_variants, variant_of_model
from model_trainer.run.network import AnyNetwork, Network, OwnModel
from model_trainer.specs import ModelSpec, minimum_size
from model_trainer.tasks.task import Task

__all__ = ["FlatBackbone", "build_backbone", "build_network", "flat_backbone"]


@in_float32()
def build_network(
    spec: ModelSpec,
    network: AnyNetwork,
    task: Task,
    num_classes: int,
    weights: str | None = None,
    *,
    variant: str | None = None,
    shapes_only: bool = False,
) -> TwoStageNetwork:
    """Builds a network with random weights, or with ImageNet's weights in the backbone.

    Args:
        spec: class, arguments and input size of the backbone.
        network: options of the network, or the user's own model.
        task: makes the head.
        num_classes: number of classes.
        weights: None for random weights, or "imagenet".
        variant: "imagenet" for the graph that Keras builds for ImageNet's weights, whatever `weights` are; see
            `variants.py`.
        shapes_only: True inside a `keras.StatelessScope`, where variables have no values that could be copied.

    Raises:
        ConfigError: the class cannot be imported or does not build a Keras model, the size is too small for it, or the
            user's own model does not fit the spec or the classes.
    """
    if isinstance(network, OwnModel):
        return build_own_network(network, spec, task, num_classes)
    if not isinstance(network, Network):
        raise ConfigError(f"should be a Network or OwnModel, got {network!r}.", "network")
    backbone = flat_backbone(spec, weights, variant, shapes_only)
    images, features = backbone.images, backbone.features
    output_names = tuple(output.name for output in task.outputs)
    head = task.head(features, network, num_classes)
    if len(head) != max(1, len(output_names)):
        raise ConfigError(
            f"should name each output of the head; {type(task).__name__}.head() returns {len(head)}, "
            f"{len(output_names) or 'none'} {'is' if len(output_names) == 1 else 'are'} named.",
            "task.outputs",
        )
    backbone_layers = set(keras.Model(images, features).layers)
    head_layers = [layer.name for layer in keras.Model(images, head).layers if layer not in backbone_layers]
    head_layers += output_names or [PROBABILITIES]
    return join_stages(
        images,
        features,
        head,
        activation=task.head_activation,
        output_names=output_names,
        name=backbone.name,
        members=backbone.members,
        positions=[*backbone.positions, *head_layers],
        variant=backbone.variant,
        inference_layers=backbone.inference_layers,
    )


@dataclass(frozen=True)
class FlatBackbone:
    """A backbone of built-in layers; its attributes but the name are those of `TwoStageNetwork`."""

    name: str
    images: keras.KerasTensor
    features: keras.KerasTensor
    members: Mapping[str, tuple[str, ...]]
    positions: tuple[str, ...]
    variant: str | None
    inference_layers: frozenset[str] = frozenset()


@in_float32()
def flat_backbone(
    spec: ModelSpec, weights: str | None, variant: str | None = None, shapes_only: bool = False
) -> FlatBackbone:
    """Builds the spec's class without its top, as a flat graph. See `build_network` for arguments and errors."""
    model = build_backbone(spec, weights)
    positions = tuple(layer.name for layer in model.layers)
    built_variant = variant_of_model(spec, model)
    needs_rescaling = variant == IMAGENET and has_variants(spec) and built_variant is None
    if not needs_rescaling and not needs_rebuilding(model):
        members: dict[str, tuple[str, ...]] = {name: (name,) for name in positions}
        return FlatBackbone(model.name, model.inputs[0], model.outputs[0], members, positions, built_variant)
    graph = rebuild_graph(model, add_rescaling(portable) if needs_rescaling else portable)
    if not shapes_only:
        assign_weights((old, substitute.layers) for old, substitute in graph.substitutes)
    built_variant = IMAGENET if needs_rescaling else built_variant
    return FlatBackbone(
        model.name, graph.images, graph.outputs[0], graph.members, positions, built_variant, graph.inference_layers
    )


def build_backbone(spec: ModelSpec, weights: str | None) -> keras.Model:
    """Builds the spec's class without its top, for images of `target_size`."""
    if spec.class_ is None:
        raise ConfigError(
            'is missing: name the network, such as "class": "keras.applications.vgg19.VGG19", '
            "or pass your own model as `network`.",
            "spec.class",
        )
    min_side = minimum_size(spec.class_)
    if min_side is not None and min(spec.target_size[:2]) < min_side:
        height, width, _ = spec.target_size
        raise ConfigError(
            f"should be at least {min_side} x {min_side} for {spec.class_}, got {height} x {width}.", "spec.target_size"
        )
    make = import_dotted(spec.class_)
    arguments: dict[str, Any] = dict(spec.kwargs)
    accepted = _parameters(make)
    for name, value in (("include_top", False), ("weights", weights), ("input_shape", spec.target_size)):
        if name in accepted or "**" in accepted:
            arguments.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            # ImageNet's weights of MobileNet are those for 224 x 224, which train at any size.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            model = make(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{spec.class_} refuses {_call_text(arguments)}: {_first_line(error)}", "spec") from error
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"{spec.class_} should build a Keras model, but returns {type(model).__name__}.", "spec.class"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(f"{spec.class_} should have one input and one output, so that a head fits.", "spec.class")
    return model


def _parameters(make: Any) -> set[str]:
    """Returns the names of the parameters of `make`; "**" stands for any other keyword argument."""
    parameters = inspect.signature(make).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    return names | ({"**"} if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) else set())


def _call_text(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
