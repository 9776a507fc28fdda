"""Loads weight arrays from a file by layer name or position; nothing but arrays and names is read.

Formats: `.h5`/`.hdf5` of any version of Keras (a whole model or weights only), `.weights.h5` and `.keras` of Keras 3.
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
    """A match of the variables of a model with the arrays of a file.

    Attributes:
        pairs: for each layer its variables with their arrays.
        container: the nested model in the file that the arrays come from, such as a backbone; empty for the whole
            file.
        left_over: layers of the file whose arrays are not used.
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
    """Finds the arrays in the file for the variables of `model`, by names and shapes only.

    Layers are matched by name or, if names do not match, by order, because Keras' numbered names ("conv2d_7") depend
    on what was built before. Models that are nested in the file's model are tried too, the largest first.

    Args:
        file: the open file.
        model: a flat model, without nested ones.
        new: names of layers that may be missing in the file, such as a head for other classes.
        exact: whether every array of the file must belong to `model`.
        paths: by layer name, the user's nested model that the layer comes from and its name in it, see `graph.Graph`.

    Raises:
        ModelFileError: the file contains no Keras weights, arrays that belong to no layer, or those of another network.
            The message names the first layer that does not match.
    """
    stored = read_stored_layers(file)
    layers = [layer for layer in model.layers if layer.weights]
    nearest, problem = (-1, False), ""
    # First with the head, which may match by position too; then without it.
    candidates = [
        (may_miss, *candidate)
        for may_miss in dict.fromkeys(((), tuple(new)))
        for candidate in _candidates(stored, layers, may_miss, tuple(new), paths or {})
    ]
    for may_miss, container, candidate in candidates:
        pairs, mismatch = _pair(layers, candidate, may_miss, stored.is_legacy)
        used = {id(array) for _, variables in pairs for _, array in variables}
        left_over = [name for name, arrays in stored.leaves.items() if not all(id(array) in used for array in arrays)]
        if not mismatch and exact and left_over:
            mismatch = f"it has no layer {min(left_over)!r}, which the file has"
        if not mismatch:
            return Fit(pairs, container, left_over)
        rank = (len(pairs), "no such layer" not in mismatch)
        if may_miss == tuple(new) and rank > nearest:
            nearest, problem = rank, mismatch
    raise ModelFileError(f"{file.path} does not fit {model.name}: {problem}. Is it a file of the same network?")


def assign_arrays(file: ModelFile, fit: Fit) -> list[str]:
    """Assigns the arrays that `find_arrays` found to their variables.

    Returns:
        The names of the layers.

    Raises:
        ModelFileError: an array is damaged.
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
    """Yields possible matches: the name of a nested model, and its arrays by the names of our layers."""
    by_position = by_order if stored.is_legacy else by_class
    yield "", stored.top
    yield "", by_position(stored.top_by_position, layers, may_miss)
    if not stored.is_nested:
        return
    if stored.is_legacy:  # this format contains the names of nested models too
        by_path = {
            (name.partition("/")[0] if "/" in name else "", _last(name)): arrays
            for name, arrays in stored.leaves.items()
        }
        yield "", {ours: by_path[path] for ours, path in paths.items() if path in by_path}
    outer = {name: arrays for name, arrays in stored.leaves.items() if "/" not in name}
    backbone = [layer for layer in layers if layer.name not in head]
    for container, leaves in stored.containers():
        by_name = _by_name(leaves)
        if by_name is not None and not by_name.keys() & outer.keys():
            yield container, {**outer, **by_name}
        # The old format puts trainable weights first, so that its order is not that of the layers.
        by_number = by_count(by_name, backbone, ()) if by_name is not None else {}
        for inner in (by_number, by_position(leaves, backbone, ())):
            yield container, {**outer, **inner}
    all_by_name = _by_name(stored.leaves)
    if all_by_name is not None:
        yield "", all_by_name
    if stored.is_legacy:
        yield "", by_order(stored.leaves, layers, may_miss)


def _by_name(leaves: Candidate) -> Candidate | None:
    """The arrays by the innermost names; None if two layers have the same name."""
    by_name = {_last(name): arrays for name, arrays in leaves.items()}
    return by_name if len(by_name) == len(leaves) else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _pair(
    layers: list[keras.Layer], candidate: Candidate, new: Sequence[str], is_legacy: bool
) -> tuple[list[tuple[keras.Layer, list[tuple[keras.Variable, StoredArray]]]], str]:
    """Pairs variables with arrays; returns the pairs, and the first mismatch or an empty string."""
    pairs = []
    for layer in layers:
        # The format of Keras 2 puts trainable weights first, in whatever order they were created.
        variables = sorted(layer.weights, key=lambda v: not v.trainable) if is_legacy else list(layer.weights)
        arrays = candidate.get(layer.name)
        if arrays is not None and _fits(layer, variables, arrays):
            pairs.append((layer, list(zip(variables, arrays, strict=True))))
        elif layer.name not in new:
            expected = [tuple(variable.shape) for variable in variables]
            shapes = [] if arrays is None else [stored.shape for stored in arrays]
            actual = "no such layer" if arrays is None else f"{shapes}" if len(shapes) <= 6 else f"{len(shapes)} arrays"
            return pairs, f"layer {layer.name!r} needs {expected}, the file has {actual}"
    return pairs, ""


def _fits(layer: keras.Layer, variables: list[keras.Variable], arrays: Sequence[StoredArray]) -> bool:
    ours, theirs = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
    # ConvNeXt's own layer for a scale of each channel stores a vector `(channels,)`.
    return ours == theirs or (is_channel_scale(layer) and len(theirs) == 1 and theirs[0] == (ours[0][2],))
