"""A network as two stages: the backbone, images to features, and the head, features to logits."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras

__all__ = ["PROBABILITIES", "TwoStageNetwork", "find_features", "join_stages"]

PROBABILITIES = "probabilities"  # name of the last layer, where the task has no names for outputs


@dataclass(frozen=True)
class TwoStageNetwork:
    """A flat functional network, and where its backbone ends. The models here share their layers.

    Attributes:
        model: float32 `(batch, height, width, channels)` to one array `(batch, num_classes)` for each output, after
            the task's activation. It is the one that is saved.
        features: the tensor between the stages: a feature map `(batch, height, width, channels)`, or
            `(batch, num_features)`.
        logits: the tensors before the activation, one for each output.
        members: for the name of a layer or a nested model, as its author wrote it, the names of the layers in `model`
            that stand for it.
        positions: such names in the author's order, for layers that are meant by position.
        variant: "imagenet" where Keras builds another graph for ImageNet's weights, and this is that one.
        in_inference: names of layers that compute as in inference also while the network trains.
        paths: for layers of a nested model its name and theirs in it, see `graph.Graph`.
    """

    model: keras.Model
    features: keras.KerasTensor
    logits: Sequence[keras.KerasTensor]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positions: tuple[str, ...] = ()
    variant: str | None = None
    in_inference: frozenset[str] = frozenset()
    paths: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @functools.cached_property
    def backbone(self) -> keras.Model:
        """Images to features."""
        return keras.Model(self.model.inputs[0], self.features, name="backbone")

    @functools.cached_property
    def head(self) -> keras.Model:
        """Features to logits: an array `(batch, num_classes)`, or of several outputs a list of them."""
        return keras.Model(self.features, list(self.logits), name="head")

    @functools.cached_property
    def to_logits(self) -> keras.Model:
        """Images to logits, both stages in one."""
        return keras.Model(self.model.inputs[0], list(self.logits), name="logits")

    @property
    def backbone_layers(self) -> tuple[str, ...]:
        """Names of the layers that the features are computed with."""
        return tuple(layer.name for layer in self.backbone.layers)

    @property
    def head_layers(self) -> tuple[str, ...]:
        """Names of the layers after the features."""
        backbone = set(self.backbone_layers)
        return tuple(layer.name for layer in self.model.layers if layer.name not in backbone)

    def final_layers(self) -> set[str]:
        """Names of the layers that give the logits, and of those after them: the ones that stay float32."""
        before = {operation.name for operation in self.to_logits.operations}
        after = {operation.name for operation in self.model.operations} - before
        todo = list(self.logits)
        while todo:  # back to the layers with weights: pooling or flattening may follow them
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
    in_inference: frozenset[str] = frozenset(),
    paths: Mapping[str, tuple[str, str]] | None = None,
) -> TwoStageNetwork:
    """Puts the activation on top of the logits and makes the network.

    Args:
        images, features, logits: of one graph.
        activation: softmax, sigmoid, or none.
        output_names: of the outputs, in the order of `logits`; empty for the single output of a task without names.
    """
    kind = "linear" if activation == "none" else activation
    taken = {operation.name for operation in keras.Model(images, list(logits)).operations}
    outputs = []
    for number, tensor in enumerate(logits):
        wanted = output_names[number] if output_names else _free(PROBABILITIES, taken)
        outputs.append(keras.layers.Activation(kind, name=wanted)(tensor))
    model = keras.Model(images, outputs if output_names else outputs[0], name=name)
    there = [layer.name for layer in model.layers]  # without activations that were taken off
    named = {known: tuple(layer for layer in of if layer in there) for known, of in members.items()}
    return TwoStageNetwork(
        model=model,
        features=features,
        logits=tuple(logits),
        members={**{layer: (layer,) for layer in there}, **named},
        positions=tuple(positions),
        variant=variant,
        in_inference=in_inference,
        paths=paths or {},
    )


def find_features(images: keras.KerasTensor, logits: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """Where the head of a whole network begins.

    It is the last feature map, or sequence of them, that everything on the way from images to logits goes through and
    after which there are weights; otherwise the last such vector; otherwise the images themselves.
    """
    through, order = _bottlenecks(images, logits)
    after = _has_weights_after(order, logits)
    candidates = [tensor for tensor in through if id(tensor) in after]
    maps = [tensor for tensor in candidates if len(tensor.shape) > 2 and not _is_one_pixel(tensor)]
    vectors = [tensor for tensor in candidates if len(tensor.shape) == 2 or _is_one_pixel(tensor)]
    return (maps or vectors or [images])[-1]


def _bottlenecks(
    images: keras.KerasTensor, logits: Sequence[keras.KerasTensor]
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """The tensors after the images that lie on every way to every logit, and all tensors, both in order."""
    order: list[keras.KerasTensor] = []
    ways: dict[int, set[int]] = {id(images): set()}

    def visit(last: keras.KerasTensor) -> None:
        todo = [last]
        while todo:
            tensor = todo[-1]
            if id(tensor) in ways:
                todo.pop()
                continue
            waiting = [each for each in _inputs_of(tensor) if id(each) not in ways]
            if waiting:
                todo += waiting
                continue
            before = [ways[id(each)] for each in _inputs_of(tensor)]
            # What comes from no image, such as a constant, is on no way.
            ways[id(tensor)] = (set.intersection(*before) if before else set()) | {id(tensor)}
            order.append(tensor)
            todo.pop()

    for tensor in logits:
        visit(tensor)
    shared = set.intersection(*(ways[id(tensor)] for tensor in logits))
    return [tensor for tensor in order if id(tensor) in shared], order


def _has_weights_after(order: Sequence[keras.KerasTensor], logits: Sequence[keras.KerasTensor]) -> set[int]:
    """Which tensors some layer with weights still works on, on the way to the logits."""
    found: set[int] = set()
    for tensor in reversed(order):
        layer = tensor._keras_history.operation
        if getattr(layer, "weights", ()) or id(tensor) in found:
            found.update(id(each) for each in _inputs_of(tensor))
    return found


def _inputs_of(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)


def _is_one_pixel(tensor: keras.KerasTensor) -> bool:
    return all(length == 1 for length in tensor.shape[1:-1])


def _free(name: str, taken: set[str]) -> str:
    number = 0
    wanted = name
    while wanted in taken:
        number += 1
        wanted = f"{name}_{number}"
    return wanted
