"""A network of two stages: the backbone maps images to features, the head maps features to logits."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras

__all__ = ["PROBABILITIES", "TwoStageNetwork", "find_feature_map", "find_features", "join_stages"]

PROBABILITIES = "probabilities"  # name of the last layer, if the task does not name its outputs


@dataclass(frozen=True)
class TwoStageNetwork:
    """A flat functional network that is divided into backbone and head. Its models share their layers.

    Attributes:
        model: maps images, float32 `(batch, height, width, channels)`, to one array `(batch, num_classes)` for each
            output, after the task's activation. This model is saved.
        features: the tensor between the stages: a feature map `(batch, height, width, channels)`, or
            `(batch, num_features)`.
        logits: the tensors before the activation, one for each output.
        members: for the name of a layer or nested model in the original model, the names of the layers in `model` that
            replace it.
        positions: the original names in their original order, for layers that are chosen by position.
        variant: "imagenet" if Keras builds another graph for ImageNet's weights, and this is that graph.
        inference_layers: names of layers that run in inference mode even while the network trains.
        paths: for layers of a nested model, its name and theirs in it, see `graph.Graph`.
    """

    model: keras.Model
    features: keras.KerasTensor
    logits: Sequence[keras.KerasTensor]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positions: tuple[str, ...] = ()
    variant: str | None = None
    inference_layers: frozenset[str] = frozenset()
    paths: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @functools.cached_property
    def backbone(self) -> keras.Model:
        """Maps images to features."""
        return keras.Model(self.model.inputs[0], self.features, name="backbone")

    @functools.cached_property
    def head(self) -> keras.Model:
        """Maps features to logits: an array `(batch, num_classes)`, or a list of them for several outputs."""
        return keras.Model(self.features, list(self.logits), name="head")

    @functools.cached_property
    def to_logits(self) -> keras.Model:
        """Maps images to logits: both stages in one model."""
        return keras.Model(self.model.inputs[0], list(self.logits), name="logits")

    @property
    def backbone_layers(self) -> tuple[str, ...]:
        """Names of the layers that compute the features."""
        return tuple(layer.name for layer in self.backbone.layers)

    @property
    def head_layers(self) -> tuple[str, ...]:
        """Names of the layers after the features."""
        backbone = set(self.backbone_layers)
        return tuple(layer.name for layer in self.model.layers if layer.name not in backbone)

    def final_layers(self) -> set[str]:
        """Names of the layers that compute the logits and of all layers after them; these stay float32."""
        before = {operation.name for operation in self.to_logits.operations}
        after = {operation.name for operation in self.model.operations} - before
        todo = list(self.logits)
        while todo:  # backwards to the layers with weights, which pooling or flattening may follow
            tensor = todo.pop()
            layer = tensor._keras_history.operation
            after.add(layer.name)
            if not getattr(layer, "weights", ()) and tensor is not self.features:
                todo += _inputs_of(tensor)
        return after


def join_stages(
    images: keras.KerasTensor,
    features: keras.KerasTensor,
    logits: Sequence[keras.KerasTensor],
    *,
    activation: str,
    output_names: Sequence[str],
    name: str,
    members: Mapping[str, tuple[str, ...]],
    positions: Sequence[str],
    variant: str | None = None,
    inference_layers: frozenset[str] = frozenset(),
    paths: Mapping[str, tuple[str, str]] | None = None,
) -> TwoStageNetwork:
    """Adds the activation to the logits and builds the network.

    Args:
        images, features, logits: tensors of one graph.
        activation: "softmax", "sigmoid", or "none".
        output_names: names of the outputs in the order of `logits`; empty for a task that does not name its output.
        name: name of the model.
        members, positions, variant, inference_layers, paths: see `TwoStageNetwork`.
    """
    kind = "linear" if activation == "none" else activation
    used_names = {operation.name for operation in keras.Model(images, list(logits)).operations}
    outputs = []
    for number, tensor in enumerate(logits):
        output_name = output_names[number] if output_names else _free_name(PROBABILITIES, used_names)
        outputs.append(keras.layers.Activation(kind, name=output_name)(tensor))
    model = keras.Model(images, outputs if output_names else outputs[0], name=name)
    layers = [layer.name for layer in model.layers]  # without activations that were removed
    present = {original: tuple(layer for layer in names if layer in layers) for original, names in members.items()}
    return TwoStageNetwork(
        model=model,
        features=features,
        logits=tuple(logits),
        members={**{layer: (layer,) for layer in layers}, **present},
        positions=tuple(positions),
        variant=variant,
        inference_layers=inference_layers,
        paths=paths or {},
    )


def find_features(images: keras.KerasTensor, logits: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """Finds the tensor that separates backbone and head in a complete network.

    It is the last feature map, or sequence, that every path from the images to the logits passes through and that
    layers with weights follow; otherwise the last such vector; otherwise the images themselves.
    """
    bottlenecks, order = _bottlenecks(images, logits)
    before_weights = _before_weights(order, logits)
    candidates = [tensor for tensor in bottlenecks if id(tensor) in before_weights]
    maps = [tensor for tensor in candidates if len(tensor.shape) > 2 and not _is_one_pixel(tensor)]
    vectors = [tensor for tensor in candidates if len(tensor.shape) == 2 or _is_one_pixel(tensor)]
    return (maps or vectors or [images])[-1]


def find_feature_map(images: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor | None:
    """Finds the last feature map of a network whose pixels still correspond to locations in the image.

    If `find_features` returns a feature map, it is the same tensor, except for networks with several outputs: here only
    one of them counts.

    Args:
        images, logits: input and output of a flat graph.

    Returns:
        The last tensor `(batch, height, width, channels)` of more than one pixel that every path from the images to
        the logits passes through, with weights before it and, if there is such a tensor, after it. None if the network
        has none, or learns from a sequence after it, as transformers do.
    """
    bottlenecks, order = _bottlenecks(images, [logits])
    maps = list(itertools.takewhile(_keeps_locations, bottlenecks))
    after_weights = _after_weights(order, images)
    with_weights = [tensor for tensor in maps if id(tensor) in after_weights and not _is_shifted(tensor)]
    before_weights = _before_weights(order, [logits])
    candidates = [tensor for tensor in with_weights if id(tensor) in before_weights] or with_weights
    if not candidates:
        return None
    sequences = [tensor for tensor in bottlenecks[len(maps) :] if len(tensor.shape) == 3 and not _is_one_pixel(tensor)]
    after_weights = _after_weights(order, candidates[-1])
    return None if any(id(tensor) in after_weights for tensor in sequences) else candidates[-1]


def _keeps_locations(tensor: keras.KerasTensor) -> bool:
    """Whether it is a feature map whose pixels correspond to the same locations as in the map before it."""
    moves_pixels = isinstance(tensor._keras_history.operation, (keras.layers.Reshape, keras.layers.Permute))
    return len(tensor.shape) == 4 and not _is_one_pixel(tensor) and not moves_pixels


def _is_shifted(tensor: keras.KerasTensor) -> bool:
    """Whether it is an earlier map with other borders, so that its tiles do not cover the image evenly."""
    return isinstance(tensor._keras_history.operation, (keras.layers.ZeroPadding2D, keras.layers.Cropping2D))


def _bottlenecks(
    images: keras.KerasTensor, logits: Sequence[keras.KerasTensor]
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """The tensors that every path from the images to every logit passes through, and all tensors, both in order."""
    order: list[keras.KerasTensor] = []
    on_every_path: dict[int, set[int]] = {id(images): set()}

    def visit(last: keras.KerasTensor) -> None:
        todo = [last]
        while todo:
            tensor = todo[-1]
            if id(tensor) in on_every_path:
                todo.pop()
                continue
            unvisited = [each for each in _inputs_of(tensor) if id(each) not in on_every_path]
            if unvisited:
                todo += unvisited
                continue
            before = [on_every_path[id(each)] for each in _inputs_of(tensor)]
            # A tensor that does not depend on the images, such as a constant, is on no path.
            on_every_path[id(tensor)] = (set.intersection(*before) if before else set()) | {id(tensor)}
            order.append(tensor)
            todo.pop()

    for tensor in logits:
        visit(tensor)
    shared = set.intersection(*(on_every_path[id(tensor)] for tensor in logits))
    return [tensor for tensor in order if id(tensor) in shared], order


def _before_weights(order: Sequence[keras.KerasTensor], logits: Sequence[keras.KerasTensor]) -> set[int]:
    """The ids of tensors that a layer with weights follows on the path to the logits."""
    before_weights: set[int] = set()
    for tensor in reversed(order):
        layer = tensor._keras_history.operation
        if getattr(layer, "weights", ()) or id(tensor) in before_weights:
            before_weights.update(id(each) for each in _inputs_of(tensor))
    return before_weights


def _after_weights(order: Sequence[keras.KerasTensor], first: keras.KerasTensor) -> set[int]:
    """The ids of tensors that depend on `first` and on weights, not counting those of `Normalization` layers."""
    reached, after_weights = {id(first)}, set[int]()
    for tensor in order:
        layer, inputs = tensor._keras_history.operation, {id(each) for each in _inputs_of(tensor)}
        if not inputs & reached:
            continue
        reached.add(id(tensor))
        has_weights = getattr(layer, "weights", ()) and not isinstance(layer, keras.layers.Normalization)
        if has_weights or inputs & after_weights:
            after_weights.add(id(tensor))
    return after_weights


def _inputs_of(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)


def _is_one_pixel(tensor: keras.KerasTensor) -> bool:
    return all(length == 1 for length in tensor.shape[1:-1])


def _free_name(name: str, used_names: set[str]) -> str:
    number = 0
    candidate = name
    while candidate in used_names:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
