"""Rebuilds the graph of a functional model with other layers, and flattens nested models.

Keras' own `clone_model` keeps the nesting, and a `.hdf5` cannot store nested models completely: the legacy format loses
the statistics of a `Normalization` in them.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras.src.models.functional import Functional  # it has no public name

__all__ = ["Graph", "Substitute", "assign_weights", "finalize", "in_float32", "is_graph", "rebuild_graph"]


class Substitute(NamedTuple):
    """The replacement of an operation in the new graph.

    Attributes:
        layers: the layers that it consists of; empty if it is not a layer.
        call: takes the arguments of the old operation, and returns what it returns.
    """

    layers: tuple[keras.Layer, ...]
    call: Callable[..., Any]


@dataclass(frozen=True)
class Graph:
    """A rebuilt graph.

    Attributes:
        images: its input.
        outputs: one tensor for each output of the old model.
        substitutes: each operation of the old model, and its substitute.
        members: for the name of each layer and nested model of the old model, at any depth, the names of the layers
            that replace it.
        paths: for the name of each new layer the outermost nested model that it was in, or an empty string, and its
            name there.
        inference_layers: names of the layers that are always called with `training=False`, or are in a model that is.
    """

    images: keras.KerasTensor
    outputs: list[keras.KerasTensor]
    substitutes: list[tuple[keras.Operation, Substitute]]
    members: dict[str, tuple[str, ...]]
    paths: dict[str, tuple[str, str]]
    inference_layers: frozenset[str]


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Makes layers that are created in the `with` block compute in float32, whatever the global dtype policy is."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def is_graph(operation: Any) -> bool:
    """Whether it is a functional or Sequential model, and not a subclass that overrides `call`."""
    return isinstance(operation, keras.Model) and type(operation).call in (Functional.call, keras.Sequential.call)


def rebuild_graph(model: keras.Model, substitute: Callable[[keras.Operation, str], Substitute]) -> Graph:
    """Rebuilds the graph of `model` with a substitute for each of its operations.

    An operation that is called several times has one substitute. The operations of a nested model are replaced one by
    one, and get the `training` argument that the model was called with.

    Args:
        model: functional or Sequential, with one input.
        substitute: makes the substitute of an operation, usually a layer, with a name that is unique in the new graph.
    """
    return _GraphRebuilder(substitute).run(model)


class _GraphRebuilder:
    def __init__(self, substitute: Callable[[keras.Operation, str], Substitute]) -> None:
        self._substitute = substitute
        self._substitutes: dict[int, tuple[keras.Operation, Substitute]] = {}
        self._names: set[str] = set()
        self._members: dict[str, dict[str, None]] = {}  # dictionaries as ordered sets
        self._owners: list[str] = []  # the nested models that are being run
        self._is_inference: dict[str, bool] = {}
        self._paths: dict[str, tuple[str, str]] = {}

    def run(self, model: keras.Model) -> Graph:
        source = model.inputs[0]
        layer = source._keras_history.operation
        images = keras.Input(batch_shape=source.shape, dtype=source.dtype, name=layer.name)
        self._names.add(layer.name)
        outputs = self._run_model(model, images, None)
        members = {name: tuple(layers) for name, layers in self._members.items()}
        inference_layers = frozenset(name for name, is_inference in self._is_inference.items() if is_inference)
        substitutes = list(self._substitutes.values())
        return Graph(images, keras.tree.flatten(outputs), substitutes, members, self._paths, inference_layers)

    def _run_model(self, model: keras.Model, inputs: Any, training: bool | None) -> Any:
        def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
            # A model's own `training` overrides that of its layers, as when Keras runs it.
            if is_graph(operation):
                inner = kwargs.get("training") if training is None else training
                self._owners.append(operation.name)
                outputs = self._run_model(operation, args[0] if args else kwargs["inputs"], inner)
                self._owners.pop()
                return outputs
            if training is not None and "training" in _parameters(operation):
                kwargs["training"] = training
            replacement = self._substitute_of(operation)
            is_inference = training is False or _is_called_in_inference(operation, kwargs)
            for layer in replacement.layers:
                self._is_inference[layer.name] = is_inference and self._is_inference.get(layer.name, True)
            return replacement.call(*args, **kwargs)

        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                inputs = call(layer, inputs)
            return inputs
        outputs = model._run_through_graph(inputs, call_fn=call)
        return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs

    def _substitute_of(self, operation: keras.Operation) -> Substitute:
        if id(operation) not in self._substitutes:
            new = self._substitute(operation, self._free_name(operation.name))
            self._substitutes[id(operation)] = (operation, new)
            outermost = self._owners[0] if self._owners else ""
            self._paths.update({layer.name: (outermost, operation.name) for layer in new.layers})
        replacement = self._substitutes[id(operation)][1]
        for owner in (operation.name, *self._owners):
            self._members.setdefault(owner, {}).update({layer.name: None for layer in replacement.layers})
        return replacement

    def _free_name(self, name: str) -> str:
        """Returns `name`; if it is taken, prefixed with the names of its models; then with a number appended."""
        candidate, number = name, 0
        if candidate in self._names:
            candidate = name = "_".join((*self._owners, name))
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate


def assign_weights(pairs: Iterable[tuple[keras.Operation, Iterable[keras.Layer]]]) -> None:
    """Assigns to layers the weights of the operations that they replace, in order; shapes may differ, but not sizes."""
    for old, layers in pairs:
        new = [variable for layer in layers for variable in layer.weights]
        for source, target in zip(getattr(old, "weights", ()), new, strict=True):
            target.assign(keras.ops.reshape(source, target.shape))
        finalize(layers)


def finalize(layers: Iterable[keras.Layer]) -> None:
    """Updates the constants that `Normalization` derives from its weights; must be called after these were assigned."""
    for layer in (each for outer in layers for each in outer._flatten_layers()):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _parameters(operation: keras.Operation) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(operation.call).parameters if isinstance(operation, keras.Layer) else {}


def _is_called_in_inference(operation: keras.Operation, arguments: Mapping[str, Any]) -> bool:
    """Whether the call passes `training=False` explicitly; the default of some layers looks the same in the graph."""
    parameter = _parameters(operation).get("training")
    return parameter is not None and parameter.default is not False and arguments.get("training") is False
