"""The layers that a model file holds arrays of, also those of models nested in it; names and shapes only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras

from model_trainer.errors import ModelFileError
from model_trainer.model_files.container import ModelFile
from model_trainer.model_files.scan import StoredArray
from model_trainer.model_files.structure import MAX_NAME_LENGTH

__all__ = ["StoredLayers", "by_class", "by_count", "by_order", "read_stored_layers"]

MAX_CONTAINERS = 8  # that are tried; a file names as many as it likes

Layers = Mapping[str, Sequence[StoredArray]]


@dataclass(frozen=True)
class StoredLayers:
    """The arrays of a file, by layer.

    Attributes:
        is_legacy: whether it is of Keras 2's format, which puts a layer's trainable arrays first.
        top: of each layer of the outermost model, by its name; a nested model counts as one layer.
        top_by_position: the same by the file's own keys, in its order.
        leaves: of each innermost layer by its path, such as "mobilenetv2_1.00_160/Conv1", in the file's order.
    """

    is_legacy: bool
    top: Layers
    top_by_position: Layers
    leaves: Layers

    @property
    def is_nested(self) -> bool:
        return any("/" in name for name in self.leaves)

    def containers(self) -> Iterator[tuple[str, Layers]]:
        """The models inside the outermost one with their layers, those with most of them first."""
        found: dict[str, dict[str, Sequence[StoredArray]]] = {}
        for name, arrays in self.leaves.items():
            pieces = name.split("/")
            for depth in range(1, len(pieces)):
                found.setdefault("/".join(pieces[:depth]), {})[name] = arrays
        yield from sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_CONTAINERS]


def read_stored_layers(file: ModelFile) -> StoredLayers:
    """Sorts the arrays of a file by layer.

    Raises:
        ModelFileError: it holds no Keras weights, or arrays of no layer.
    """
    root = file.scanned.groups[""]
    if "model_weights" in file.scanned.groups:
        _refuse_others(file, {"model_weights", "optimizer_weights"}, root)
        return _legacy_layers(file, "model_weights")
    if {"layer_names", "layer_names0"} & file.scanned.attributes[""].keys():
        return _legacy_layers(file, "")
    if "layers" in file.scanned.groups:
        _refuse_others(file, {"layers", "optimizer", "vars"}, root)
        return _keras_3_layers(file)
    raise ModelFileError(f"{file.path} holds no Keras weights.")


def by_order(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """The file's layers one after the other for those of the backbone; a head is told by its names."""
    backbone = [layer.name for layer in layers if layer.name not in new]
    rest = [name for name in stored if name not in new]
    given = {ours: stored[theirs] for ours, theirs in zip(backbone, rest, strict=False)}
    return given | {name: stored[name] for name in new if name in stored}


def by_class(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """By class and count: Keras 3 calls the second Conv2D of a network "conv2d_1", whatever its name is."""
    counts: dict[str, int] = {}
    keys = {name.rpartition("/")[2]: name for name in stored}
    named: dict[str, Sequence[StoredArray]] = {}
    for layer in layers:
        base = _snake_case(type(layer).__name__)
        number = counts.get(base, 0)
        counts[base] = number + 1
        key = base if number == 0 else f"{base}_{number}"
        if key in keys:
            named[layer.name] = stored[keys[key]]
    return named


def by_count(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """By names that Keras counts, whatever number the count began with: the least "conv2d_..." is the first Conv2D."""
    ours = _counted(layer.name for layer in layers if layer.name not in new)
    theirs = _counted(stored)
    pairs = [pair for stem, names in ours.items() for pair in zip(names, theirs.get(stem, ()), strict=False)]
    return {name: stored[theirs_name] for name, theirs_name in pairs}


def _counted(names: Iterable[str]) -> dict[str, list[str]]:
    """Names in the order of the numbers that they end with, by what stands before."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL)
        assert match is not None
        numbered.setdefault(match[1], []).append((int(match[2] or 0), name))
    return {stem: [name for _, name in sorted(of)] for stem, of in numbered.items()}


def _snake_case(name: str) -> str:
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _legacy_layers(file: ModelFile, group: str) -> StoredLayers:
    prefix = f"{group}/".lstrip("/")
    names = _names(file, group, "layer_names")
    _refuse_others(file, {*names, "top_level_model_weights"}, file.scanned.groups[group])
    layers: dict[str, list[StoredArray]] = {}
    leaves: dict[str, list[StoredArray]] = {}
    known: set[str] = set()
    for name in names:
        if prefix + name not in file.scanned.groups:
            raise ModelFileError(f"{file.path} is damaged: it names the layer {name!r}, but holds none of that name.")
        weights = _names(file, prefix + name, "weight_names")
        paths = [f"{prefix}{name}/{weight}" for weight in weights]
        missing = next((path for path in paths if path not in file.scanned.arrays), None)
        if missing is not None:
            raise ModelFileError(f"{file.path} is damaged: it names the array {missing!r}, but holds none there.")
        if paths:
            layers[name] = [file.scanned.arrays[path] for path in paths]
        for weight, path in zip(weights, paths, strict=True):
            leaves.setdefault(_leaf(name, weight), []).append(file.scanned.arrays[path])
        known.update(paths)
    within = (path for path in file.scanned.arrays if path.startswith(prefix))
    _refuse_others(file, known, (path for path in within if not path.startswith(f"{prefix}top_level_model_weights/")))
    return StoredLayers(True, layers, layers, leaves)


def _leaf(layer: str, weight: str) -> str:
    """The path of the innermost layer with a weight such as "Conv1/kernel:0" in the group of a layer or model."""
    within = weight.rpartition("/")[0]
    within = within.removeprefix(f"{layer}/") if within != layer else ""
    return f"{layer}/{within}".rstrip("/")


def _names(file: ModelFile, group: str, attribute: str) -> list[str]:
    attributes = file.scanned.attributes[group]
    # An attribute over 64 KiB is stored in numbered parts.
    numbered = (f"{attribute}{number}" for number in itertools.count())
    parts = [attribute] if attribute in attributes else itertools.takewhile(attributes.__contains__, numbered)
    names: dict[str, None] = {}
    for name in (name for part in parts for name in file.texts(group, part, MAX_NAME_LENGTH) or ()):
        pieces = name.split("/")
        if not name.isprintable() or any(piece in ("", ".", "..") for piece in pieces):
            raise ModelFileError(f"{file.path} is refused: {name[:40]!r} in {attribute!r} is no name of a layer's.")
        if name in names:
            raise ModelFileError(f"{file.path} is refused: {attribute!r} of {group or '/'!r} says a name twice.")
        names[name] = None
    return list(names)


def _keras_3_layers(file: ModelFile) -> StoredLayers:
    """Keras 3's own key for each layer is its class, counted, such as "conv2d_1"; newer files have its name too."""
    top: dict[str, list[StoredArray]] = {}
    top_by_position: dict[str, list[StoredArray]] = {}
    leaves: dict[str, list[StoredArray]] = {}
    for place, members in file.scanned.groups.items():
        pieces = place.split("/")
        if pieces[0] != "layers" or pieces[-1] != "vars" or not members:
            continue
        paths = [f"{place}/{number}" for number in range(len(members))]
        keys = [piece for piece in pieces[1:-1] if piece != "layers"]
        if not keys:
            raise ModelFileError(f"{file.path} is damaged: it has arrays of no layer, at {place!r}.")
        if any(path not in file.scanned.arrays for path in paths):
            raise ModelFileError(f"{file.path} is damaged: the arrays of {'/'.join(keys)!r} are not numbered from 0.")
        arrays = [file.scanned.arrays[path] for path in paths]
        own = (file.texts(place, "name", MAX_NAME_LENGTH) or [keys[-1]])[0]
        if not own.isprintable():
            raise ModelFileError(f"{file.path} is refused: {own[:40]!r} is no name of a layer.")
        if len(keys) == 1:
            top[own] = top_by_position[keys[0]] = arrays
        leaves["/".join((*keys[:-1], own))] = arrays
    return StoredLayers(False, top, top_by_position, leaves)


def _refuse_others(file: ModelFile, known: set[str], found: Iterable[str]) -> None:
    for name in found:
        if name not in known:
            raise ModelFileError(f"{file.path} is refused: it holds {name!r}, which belongs to none of its layers.")
