"""Turns the user's own Keras model into a network of two stages."""

from __future__ import annotations

from typing import Any

import keras
from absl import logging

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest
from model_trainer.network.final_activation import FinalActivation, find_final_activation, without_activation
from model_trainer.network.graph import Graph, assign_weights, in_float32, is_graph
from model_trainer.network.portable import make_portable
from model_trainer.network.stages import TwoStageNetwork, find_features, join_stages
from model_trainer.run.network import OwnModel
from model_trainer.specs import ModelSpec
from model_trainer.tasks.task import Task

__all__ = ["build_own_network", "stage_own_model"]

_FIELD = "network.model"


def build_own_network(network: OwnModel, spec: ModelSpec, task: Task, num_classes: int) -> TwoStageNetwork:
    """Builds the network of the declared model, with its weights.

    Raises:
        ConfigError: it is not a functional or Sequential model, does not fit the spec, the task or the classes, or the
            logits cannot be recovered from its output.
    """
    return stage_own_model(network.make(num_classes), network.features, spec, task, num_classes)


@in_float32()
def stage_own_model(
    model: Any,
    features: str | None,
    spec: ModelSpec,
    task: Task,
    num_classes: int,
    *,
    trains: bool = True,
    shapes_only: bool = False,
) -> TwoStageNetwork:
    """Makes a flat copy of `model` that ends in the task's activation; `model` is not changed.

    Args:
        model: a functional or Sequential model.
        features: name of the last layer of the backbone; None finds it.
        spec, task, num_classes: what the model must fit.
        trains: whether the network is to be trained. If not, a final activation that contradicts the task is kept, for
            files of older versions, which accepted such activations.
        shapes_only: True inside a `keras.StatelessScope`, where variables have no values that could be copied.

    Raises:
        ConfigError: see `build_own_network`.
    """
    positions = [layer.name for layer in model.layers] if isinstance(model, keras.Sequential) else None
    model = _checked_model(model, spec)
    names = _output_names(model, task, num_classes)
    graph = _flat_graph(model)
    outputs = [graph.outputs[list(model.output_names).index(name)] for name in names] if names else graph.outputs
    activation = task.head_activation
    try:
        endings = [_checked_final_activation(output, task) for output in outputs]
    except ConfigError:
        if trains:
            raise
        endings, activation = [FinalActivation(None, output) for output in outputs], "none"
    logits, new_layers = [], {}
    for ending in endings:
        tensor, replacement = without_activation(ending, names)
        logits.append(tensor)
        if replacement is not None:
            new_layers[replacement[0].name] = replacement[1]
    _check_not_shared(graph, logits, new_layers)
    if not shapes_only:
        assign_weights(
            (old, tuple(new_layers.get(layer.name, layer) for layer in substitute.layers))
            for old, substitute in graph.substitutes
        )
    members = {
        name: tuple(new_layers[each].name if each in new_layers else each for each in layers)
        for name, layers in graph.members.items()
    }
    network = join_stages(
        graph.images,
        _features(features, graph, logits, model.name),
        logits,
        activation=activation,
        output_names=names,
        name=model.name,
        members=members,
        positions=positions or [layer.name for layer in model.layers],
        inference_layers=graph.inference_layers,
        paths={new_layers[name].name if name in new_layers else name: path for name, path in graph.paths.items()},
    )
    if trains and activation != "none" and any(ending.activation is None for ending in endings):
        logging.info("%s ends in logits; the .hdf5 adds a %s.", model.name, activation)
    return network


def _checked_model(model: Any, spec: ModelSpec) -> keras.Model:
    if isinstance(model, keras.Sequential):
        if not model.built:
            model.build((None, *spec.target_size))
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model):
        raise ConfigError(f"should be a Keras model, got {type(model).__name__}.", _FIELD)
    if not is_graph(model):
        raise ConfigError(
            "should be a functional or Sequential model; a subclassed one cannot be saved so that plain Keras loads "
            "it. Wrap its layers: keras.Model(inputs, outputs).",
            _FIELD,
        )
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.Model) and not is_graph(layer):
            raise ConfigError(
                f"contains {layer.name!r}, a subclassed model, which cannot be saved so that plain Keras loads it. "
                "Build it from layers: keras.Model(inputs, outputs).",
                _FIELD,
            )
    if len(model.inputs) != 1:
        raise ConfigError(f"should have one input, for images; it has {len(model.inputs)}.", _FIELD)
    shape = tuple(model.inputs[0].shape[1:])
    fits = len(shape) == 3 and all(side in (None, size) for side, size in zip(shape, spec.target_size, strict=True))
    dtype = keras.backend.standardize_dtype(model.inputs[0].dtype)
    if not keras.backend.is_float_dtype(dtype) and spec.preprocess_func != "none":
        raise ConfigError(
            f"takes {dtype} images, but `spec.preprocess_func` {spec.preprocess_func!r} returns floats. Use "
            'preprocess_func="none", or keras.Input without a dtype.',
            _FIELD,
        )
    if not fits:
        raise ConfigError(f"takes images of {shape}, but `spec.target_size` is {spec.target_size}.", _FIELD)
    return model


def _output_names(model: keras.Model, task: Task, num_classes: int) -> tuple[str, ...]:
    names = tuple(output.name for output in task.outputs)
    if len(model.outputs) != max(1, len(names)) or (names and set(names) != set(model.output_names)):
        raise ConfigError(
            f"has the outputs {list(model.output_names)}, but `task.outputs` names {list(names)}.", _FIELD
        )
    for output in model.outputs:
        if output.shape[-1] != num_classes:
            raise ConfigError(
                f"returns {output.shape[-1]} value{'s' * (output.shape[-1] != 1)} for each image, but the data has "
                f"{num_classes} classes.",
                _FIELD,
            )
        if len(output.shape) != 2:
            raise ConfigError(
                f"should return a value for each class, (batch, {num_classes}), but returns {tuple(output.shape)}. Add "
                "keras.layers.GlobalAveragePooling2D() or Flatten() at the end.",
                _FIELD,
            )
    return names


def _flat_graph(model: keras.Model) -> Graph:
    try:
        return make_portable(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        is_function = "lambda" in reason.lower()
        cure = (
            "Write the function as a layer: a class of keras.layers.Layer"
            if is_function
            else "A layer of your own needs a get_config() with every argument of its __init__"
        )
        raise ConfigError(f"cannot be copied layer by layer, which training needs: {reason} {cure}.", _FIELD) from error


def _checked_final_activation(output: keras.KerasTensor, task: Task) -> FinalActivation:
    """The final activation of an output; raises ConfigError if it contradicts the task."""
    ending = find_final_activation(output, _FIELD)
    if ending.activation is None:
        return ending
    kind = type(task).__name__
    if ending.activation != task.loss_activation:
        cure = (
            'Use task=Classification(activation="sigmoid"), or MultiLabel() for tags'
            if ending.activation == "sigmoid"
            else "Use Classification()"
        )
        raise ConfigError(
            f"ends in {ending.activation}, but {kind} is trained with {task.loss_activation or 'none'}. {cure}; or end "
            "your model in logits.",
            _FIELD,
        )
    if task.head_activation == "none":
        raise ConfigError(
            f'ends in {ending.activation}, but {kind}(activation="none") saves a network that ends in logits. Omit '
            'activation="none", or end your model in logits.',
            _FIELD,
        )
    return ending


def _check_not_shared(graph: Graph, logits: list[keras.KerasTensor], new_layers: dict[str, keras.Layer]) -> None:
    """Checks that a last layer whose activation is removed is not used elsewhere in the model."""
    original_ids = {layer.name: id(layer) for _, substitute in graph.substitutes for layer in substitute.layers}
    try:
        used = {id(layer) for layer in keras.Model(graph.images, logits).layers}
    except ValueError:  # the old and the new layer have the same name
        used = set(original_ids.values())
    for name in new_layers:
        if original_ids[name] in used:
            raise ConfigError(f"uses {name!r} for its output and elsewhere too. End your model in logits.", _FIELD)


def _features(declared: str | None, graph: Graph, logits: list[keras.KerasTensor], name: str) -> keras.KerasTensor:
    if declared is None:
        return find_features(graph.images, logits)
    field = "network.features"
    if not graph.members.get(declared):
        names = [layer for layer, members in graph.members.items() if members]
        raise ConfigError(f"is {declared!r}, but {name} has no such layer.{nearest(declared, names)}", field)
    operations = {operation.name: operation for operation in keras.Model(graph.images, logits).operations}
    last = operations.get(graph.members[declared][-1])
    if last is None or len(last._inbound_nodes) != 1:
        raise ConfigError(f"is {declared!r}, which {name} calls several times, or not at all for its output.", field)
    features = last._inbound_nodes[0].output_tensors[0]
    if any(features is tensor for tensor in logits):
        raise ConfigError(f"is {declared!r}, which is the output itself; nothing would be left for the head.", field)
    try:
        keras.Model(features, logits)
    except ValueError as error:
        raise ConfigError(
            f"is {declared!r}, but {name} has a path to its output that does not pass through it.",
            field,
        ) from error
    return features
