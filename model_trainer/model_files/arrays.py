"""Weight arrays out of a file, by the name of their layer or its place; nothing but arrays and names is read.

Formats: `.h5`/`.hdf5` of any Keras (a whole model or weights only), `.weights.h5` and `.keras` of Keras 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from model_trainer.errors import ModelFileError
from model_trainer.model_files.container import ModelFile, reading
from model_trainer.model_files.scan import StoredArray
from model_trainer.model_files.stored_layers import StoredLayers, by_class, by_count, by_order, read_stored_layers
from model_trainer.network.graph import finalize
from model_trainer.network.portable import is_channel_scale

__all__ = ["Fit", "assign_arrays", "find_arrays"]


@dataclass(frozen=True)
class Fit:
    """Which arrays of a file belong to which variables.

    Attributes:
        pairs: for each layer its variables with their arrays.
        container: the model inside the file's that they come from, such as a backbone that is nested in it; empty for
            the whole file.
        left_over: layers of the file that none of them belongs to.
    """

    pairs: list[tuple[keras.Layer, list[tuple[keras.Variable, StoredArray]]]]
    container: str
    left_over: list[str]

    @property
    def layers(self) -> list[str]:
        return [layer.name for layer, _ in self.pairs]


def find_arrays(
    file: ModelFile,
    model: keras.Model,
    new: Sequence[str] = (),
    exact: bool = False,
    paths: Mapping[str, tuple[str, str]] | None = None,
) -> Fit:
    """Which array of the file belongs to which variable of `model`; only names and shapes are looked at.

    By the names of the layers; where those do not fit, by their order, as the names that Keras counts ("conv2d_7")
    depend on what was built before. A model that is nested in the file's is tried by itself, the largest first.

    Args:
        model: flat.
        new: layers that may do without, such as a head for other classes.
        exact: whether every array of the file must belong to `model`.
        paths: of layers that were in nested models of the user's, as in `graph.Graph`.

    Raises:
        ModelFileError: the file holds no Keras weights, arrays of no layer, or those of another network; names the
            first layer that does not fit.
    """
    stored = read_stored_layers(file)
    layers = [layer for layer in model.layers if layer.weights]
    nearest, problem = (-1, False), ""
    # First with the head, which may be meant by its place too; then without.
    tries = [
        (may_miss, *found)
        for may_miss in dict.fromkeys(((), tuple(new)))
        for found in _candidates(stored, layers, may_miss, tuple(new), paths or {})
    ]
    for may_miss, container, candidate in tries:
        pairs, misfit = _pair(layers, candidate, may_miss, stored.is_legacy)
        used = {id(array) for _, of in pairs for _, array in of}
        left_over = [name for name, arrays in stored.leaves.items() if not all(id(array) in used for array in arrays)]
        if not misfit and exact and left_over:
            misfit = f"it has no layer {min(left_over)!r}, which the file has"
        if not misfit:
            return Fit(pairs, container, left_over)
        rank = (len(pairs), "no such layer" not in misfit)
        if may_miss == tuple(new) and rank > nearest:
            nearest, problem = rank, misfit
    raise ModelFileError(f"{file.path} does not fit {model.name}: {problem}. Is it a file of the same class?")


def assign_arrays(file: ModelFile, fit: Fit) -> list[str]:
    """Reads the arrays that `find_arrays` found into their variables; returns the names of the layers.

    Raises:
        ModelFileError: one of them is damaged.
    """
    for _, pairs in fit.pairs:
        for variable, stored in pairs:
            with reading(file.path):
                values = stored.read()
            variable.assign(np.reshape(values, variable.shape))
    finalize(layer for layer, _ in fit.pairs)
    return fit.layers


Candidate = Mapping[str, Sequence[StoredArray]]


def _candidates(
    stored: StoredLayers,
    layers: list[keras.Layer],
    may_miss: Sequence[str],
    head: Sequence[str],
    paths: Mapping[str, tuple[str, str]],
) -> Iterator[tuple[str, Candidate]]:
    """Ways to read the file: the model inside it that is meant, and arrays by the names of our layers."""
    by_position = by_order if stored.is_legacy else by_class
    yield "", stored.top
    yield "", by_position(stored.top_by_position, layers, may_miss)
    if not stored.is_nested:
        return
    if stored.is_legacy:  # it has the names of nested models too
        by_path = {
            (name.partition("/")[0] if "/" in name else "", _last(name)): of for name, of in stored.leaves.items()
        }
        yield "", {ours: by_path[path] for ours, path in paths.items() if path in by_path}
    outer = {name: arrays for name, arrays in stored.leaves.items() if "/" not in name}
    backbone = [layer for layer in layers if layer.name not in head]
    for container, leaves in stored.containers():
        named = _named(leaves)
        if named is not None and not named.keys() & outer.keys():
            yield container, {**outer, **named}
        # The old format puts what is trainable first, so that its order is not the layers'.
        counted = by_count(named, backbone, ()) if named is not None else {}
        for inner in (counted, by_position(leaves, backbone, ())):
            yield container, {**outer, **inner}
    whole = _named(stored.leaves)
    if whole is not None:
        yield "", whole
    if stored.is_legacy:
        yield "", by_order(stored.leaves, layers, may_miss)


def _named(leaves: Candidate) -> Candidate | None:
    """By the innermost names; None where two layers have the same."""
    named = {_last(name): arrays for name, arrays in leaves.items()}
    return named if len(named) == len(leaves) else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _pair(
    layers: list[keras.Layer], candidate: Candidate, new: Sequence[str], is_legacy: bool
) -> tuple[list[tuple[keras.Layer, list[tuple[keras.Variable, StoredArray]]]], str]:
    """The pairs, and what does not fit."""
    pairs = []
    for layer in layers:
        # Keras 2 and its format put the trainable weights first, whatever the order in which they were made.
        variables = sorted(layer.weights, key=lambda v: not v.trainable) if is_legacy else list(layer.weights)
        given = candidate.get(layer.name)
        if given is not None and _fits(layer, variables, given):
            pairs.append((layer, list(zip(variables, given, strict=True))))
        elif layer.name not in new:
            wanted = [tuple(variable.shape) for variable in variables]
            shapes = [] if given is None else [stored.shape for stored in given]
            came = "no such layer" if given is None else f"{shapes}" if len(shapes) <= 6 else f"{len(shapes)} arrays"
            return pairs, f"layer {layer.name!r} needs {wanted}, the file has {came}"
    return pairs, ""


def _fits(layer: keras.Layer, variables: list[keras.Variable], arrays: Sequence[StoredArray]) -> bool:
    ours, theirs = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
    # ConvNeXt's own layer for this holds a row `(channels,)`.
    return ours == theirs or (is_channel_scale(layer) and len(theirs) == 1 and theirs[0] == (ours[0][2],))
