"""The graph of a functional model, run again with other layers; models nested in it come out flat.

Keras' own `clone_model` keeps the nesting, and a `.hdf5` cannot hold all of a nested model: the legacy format forgets
the statistics of a `Normalization` in it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras.src.models.functional import Functional  # no public name leads to it

__all__ = ["Graph", "Substitute", "assign_weights", "finalize", "in_float32", "is_graph", "rebuild_graph"]


class Substitute(NamedTuple):
    """What stands in the new graph for one operation of the old one.

    Attributes:
        layers: that it consists of; none where it is no layer.
        call: takes what the old operation takes, and gives what it gives.
    """

    layers: tuple[keras.Layer, ...]
    call: Callable[..., Any]


@dataclass(frozen=True)
class Graph:
    """A graph that was run again.

    Attributes:
        images: its input.
        outputs: one tensor for each output of the old model.
        substitutes: each operation of the old model, and what stands for it.
        members: for the name of each layer and nested model of the old model, at any depth, the names of the layers
            that stand for it.
        paths: for the name of each new layer the outermost nested model that it was in, or an empty text, and the name
            that it had there.
        in_inference: names of the layers that are only ever called with `training=False`, or lie in a model that is.
    """

    images: keras.KerasTensor
    outputs: list[keras.KerasTensor]
    substitutes: list[tuple[keras.Operation, Substitute]]
    members: dict[str, tuple[str, ...]]
    paths: dict[str, tuple[str, str]]
    in_inference: frozenset[str]


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Layers that are made inside the block compute in float32, whatever the user's global policy is."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def is_graph(operation: Any) -> bool:
    """Whether it is a functional or Sequential model, not one whose `call` is its author's own."""
    return isinstance(operation, keras.Model) and type(operation).call in (Functional.call, keras.Sequential.call)


def rebuild_graph(model: keras.Model, substitute: Callable[[keras.Operation, str], Substitute]) -> Graph:
    """Runs the graph of `model` with what `substitute` gives for each of its operations.

    An operation that is called several times has one substitute. Of a nested model each operation is asked for by
    itself, and gets the `training` that the model was called with.

    Args:
        model: functional or Sequential, with one input.
        substitute: takes an operation, which mostly is a layer, and a name that nothing else in the new graph has.
    """
    return _Rebuilding(substitute).run(model)


class _Rebuilding:
    def __init__(self, substitute: Callable[[keras.Operation, str], Substitute]) -> None:
        self._substitute = substitute
        self._made: dict[int, tuple[keras.Operation, Substitute]] = {}
        self._names: set[str] = set()
        self._members: dict[str, dict[str, None]] = {}  # dictionaries for their order
        self._owners: list[str] = []  # the nested models that are running
        self._is_inference: dict[str, bool] = {}
        self._paths: dict[str, tuple[str, str]] = {}

    def run(self, model: keras.Model) -> Graph:
        source = model.inputs[0]
        layer = source._keras_history.operation
        images = keras.Input(batch_shape=source.shape, dtype=source.dtype, name=layer.name)
        self._names.add(layer.name)
        outputs = self._run_model(model, images, None)
        members = {name: tuple(of) for name, of in self._members.items()}
        in_inference = frozenset(name for name, is_inference in self._is_inference.items() if is_inference)
        substitutes = list(self._made.values())
        return Graph(images, keras.tree.flatten(outputs), substitutes, members, self._paths, in_inference)

    def _run_model(self, model: keras.Model, inputs: Any, training: bool | None) -> Any:
        def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
            # A model's own `training` comes before that of its layers, as when Keras runs it.
            if is_graph(operation):
                inner = kwargs.get("training") if training is None else training
                self._owners.append(operation.name)
                outputs = self._run_model(operation, args[0] if args else kwargs["inputs"], inner)
                self._owners.pop()
                return outputs
            if training is not None and "training" in _parameters(operation):
                kwargs["training"] = training
            made = self._substitute_of(operation)
            is_inference = training is False or _says_inference(operation, kwargs)
            for layer in made.layers:
                self._is_inference[layer.name] = is_inference and self._is_inference.get(layer.name, True)
            return made.call(*args, **kwargs)

        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                inputs = call(layer, inputs)
            return inputs
        outputs = model._run_through_graph(inputs, call_fn=call)
        return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs

    def _substitute_of(self, operation: keras.Operation) -> Substitute:
        if id(operation) not in self._made:
            made = self._substitute(operation, self._free_name(operation.name))
            self._made[id(operation)] = (operation, made)
            outermost = self._owners[0] if self._owners else ""
            self._paths.update({layer.name: (outermost, operation.name) for layer in made.layers})
        found = self._made[id(operation)][1]
        for owner in (operation.name, *self._owners):
            self._members.setdefault(owner, {}).update({layer.name: None for layer in found.layers})
        return found

    def _free_name(self, name: str) -> str:
        """`name`; where another layer has it, with the names of the models around it; then with a number."""
        wanted, number = name, 0
        if wanted in self._names:
            wanted = name = "_".join((*self._owners, name))
        while wanted in self._names:
            number += 1
            wanted = f"{name}_{number}"
        self._names.add(wanted)
        return wanted


def assign_weights(pairs: Iterable[tuple[keras.Operation, Iterable[keras.Layer]]]) -> None:
    """Gives layers the weights of those that they stand for, in their order; a shape may differ, a size not."""
    for old, layers in pairs:
        new = [variable for layer in layers for variable in layer.weights]
        for source, target in zip(getattr(old, "weights", ()), new, strict=True):
            target.assign(keras.ops.reshape(source, target.shape))
        finalize(layers)


def finalize(layers: Iterable[keras.Layer]) -> None:
    """To be called when weights were assigned: `Normalization`, also in a wrapper, computes with constants of them."""
    for layer in (each for outer in layers for each in outer._flatten_layers()):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _parameters(operation: keras.Operation) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(operation.call).parameters if isinstance(operation, keras.Layer) else {}


def _says_inference(operation: keras.Operation, arguments: Mapping[str, Any]) -> bool:
    """Whether `training=False` was written; a default of a layer, as Dropout's, looks the same in the graph."""
    parameter = _parameters(operation).get("training")
    return parameter is not None and parameter.default is not False and arguments.get("training") is False
