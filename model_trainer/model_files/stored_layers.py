"""The layers whose weights a model file contains, including those of nested models; names and shapes only."""

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

MAX_CONTAINERS = 8  # nested models that are tried; a file may contain any number

Layers = Mapping[str, Sequence[StoredArray]]


@dataclass(frozen=True)
class StoredLayers:
    """The arrays of a file, by layer.

    Attributes:
        is_legacy: whether the file has the format of Keras 2, which puts a layer's trainable arrays first.
        top: the arrays of each layer of the outermost model, by its name; a nested model counts as one layer.
        top_by_position: the same by the file's own keys, in its order.
        leaves: the arrays of each innermost layer by its path, such as "mobilenetv2_1.00_160/Conv1", in the file's
            order.
    """

    is_legacy: bool
    top: Layers
    top_by_position: Layers
    leaves: Layers

    @property
    def is_nested(self) -> bool:
        return any("/" in name for name in self.leaves)

    def containers(self) -> Iterator[tuple[str, Layers]]:
        """Yields the nested models with their layers, the one with the most layers first."""
        models: dict[str, dict[str, Sequence[StoredArray]]] = {}
        for name, arrays in self.leaves.items():
            pieces = name.split("/")
            for depth in range(1, len(pieces)):
                models.setdefault("/".join(pieces[:depth]), {})[name] = arrays
        yield from sorted(models.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_CONTAINERS]


def read_stored_layers(file: ModelFile) -> StoredLayers:
    """Groups the arrays of a file by layer.

    Raises:
        ModelFileError: it contains no Keras weights, or arrays that belong to no layer.
    """
    root = file.scanned.groups[""]
    if "model_weights" in file.scanned.groups:
        _refuse_unexpected(file, {"model_weights", "optimizer_weights"}, root)
        return _legacy_layers(file, "model_weights")
    if {"layer_names", "layer_names0"} & file.scanned.attributes[""].keys():
        return _legacy_layers(file, "")
    if "layers" in file.scanned.groups:
        _refuse_unexpected(file, {"layers", "optimizer", "vars"}, root)
        return _keras_3_layers(file)
    raise ModelFileError(f"{file.path} contains no Keras weights.")


def by_order(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """Matches the file's layers with those of the backbone by their order, and with those of the head by name.

    Args:
        stored: the arrays of the file, by its own names.
        layers: the layers of the model that have weights.
        new: names of layers of the head, which are matched by name.

    Returns:
        The arrays by the names of the model's layers; without layers that have no match.
    """
    backbone = [layer.name for layer in layers if layer.name not in new]
    rest = [name for name in stored if name not in new]
    matches = {ours: stored[theirs] for ours, theirs in zip(backbone, rest, strict=False)}
    return matches | {name: stored[name] for name in new if name in stored}


def by_class(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """Matches layers by class and count: Keras 3 stores the second Conv2D as "conv2d_1", whatever its name is.

    Arguments and result as in `by_order`; `new` is not used.
    """
    counts: dict[str, int] = {}
    keys = {name.rpartition("/")[2]: name for name in stored}
    matches: dict[str, Sequence[StoredArray]] = {}
    for layer in layers:
        base = _snake_case(type(layer).__name__)
        number = counts.get(base, 0)
        counts[base] = number + 1
        key = base if number == 0 else f"{base}_{number}"
        if key in keys:
            matches[layer.name] = stored[keys[key]]
    return matches


def by_count(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """Matches layers by the order of Keras' numbered names: the lowest "conv2d_..." is the first Conv2D.

    Arguments and result as in `by_order`; layers in `new` are not matched.
    """
    ours = _by_stem(layer.name for layer in layers if layer.name not in new)
    theirs = _by_stem(stored)
    pairs = [pair for stem, names in ours.items() for pair in zip(names, theirs.get(stem, ()), strict=False)]
    return {name: stored[theirs_name] for name, theirs_name in pairs}


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Groups names by what precedes their number, sorted by the number."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL)
        assert match is not None
        numbered.setdefault(match[1], []).append((int(match[2] or 0), name))
    return {stem: [name for _, name in sorted(pairs)] for stem, pairs in numbered.items()}


def _snake_case(name: str) -> str:
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _legacy_layers(file: ModelFile, group: str) -> StoredLayers:
    prefix = f"{group}/".lstrip("/")
    names = _names(file, group, "layer_names")
    _refuse_unexpected(file, {*names, "top_level_model_weights"}, file.scanned.groups[group])
    layers: dict[str, list[StoredArray]] = {}
    leaves: dict[str, list[StoredArray]] = {}
    layer_paths: set[str] = set()
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
        layer_paths.update(paths)
    top_level = f"{prefix}top_level_model_weights/"
    in_group = (path for path in file.scanned.arrays if path.startswith(prefix) and not path.startswith(top_level))
    _refuse_unexpected(file, layer_paths, in_group)
    return StoredLayers(True, layers, layers, leaves)


def _leaf(layer: str, weight: str) -> str:
    """The path of the innermost layer that a weight such as "Conv1/kernel:0" belongs to.

    Args:
        layer: the layer or nested model in whose group the weight is stored.
        weight: the name of the weight.
    """
    within = weight.rpartition("/")[0]
    within = within.removeprefix(f"{layer}/") if within != layer else ""
    return f"{layer}/{within}".rstrip("/")


def _names(file: ModelFile, group: str, attribute: str) -> list[str]:
    attributes = file.scanned.attributes[group]
    # Keras splits an attribute over 64 KiB into numbered chunks.
    numbered = (f"{attribute}{number}" for number in itertools.count())
    chunks = [attribute] if attribute in attributes else itertools.takewhile(attributes.__contains__, numbered)
    names: dict[str, None] = {}
    for name in (name for chunk in chunks for name in file.strings(group, chunk, MAX_NAME_LENGTH) or ()):
        pieces = name.split("/")
        if not name.isprintable() or any(piece in ("", ".", "..") for piece in pieces):
            raise ModelFileError(f"{file.path} is refused: {name[:40]!r} in {attribute!r} is not the name of a weight.")
        if name in names:
            raise ModelFileError(f"{file.path} is refused: {attribute!r} of {group or '/'!r} contains a name twice.")
        names[name] = None
    return list(names)


def _keras_3_layers(file: ModelFile) -> StoredLayers:
    """Reads the format of Keras 3, whose key of a layer is its class with a count, such as "conv2d_1".

    Newer files contain the layer's name too.
    """
    top: dict[str, list[StoredArray]] = {}
    top_by_position: dict[str, list[StoredArray]] = {}
    leaves: dict[str, list[StoredArray]] = {}
    for group, members in file.scanned.groups.items():
        pieces = group.split("/")
        if pieces[0] != "layers" or pieces[-1] != "vars" or not members:
            continue
        paths = [f"{group}/{number}" for number in range(len(members))]
        keys = [piece for piece in pieces[1:-1] if piece != "layers"]
        if not keys:
            raise ModelFileError(f"{file.path} is damaged: it has arrays that belong to no layer, at {group!r}.")
        if any(path not in file.scanned.arrays for path in paths):
            raise ModelFileError(f"{file.path} is damaged: the arrays of {'/'.join(keys)!r} are not numbered from 0.")
        arrays = [file.scanned.arrays[path] for path in paths]
        name = (file.strings(group, "name", MAX_NAME_LENGTH) or [keys[-1]])[0]
        if not name.isprintable():
            raise ModelFileError(f"{file.path} is refused: {name[:40]!r} is not the name of a layer.")
        if len(keys) == 1:
            top[name] = top_by_position[keys[0]] = arrays
        leaves["/".join((*keys[:-1], name))] = arrays
    return StoredLayers(False, top, top_by_position, leaves)


def _refuse_unexpected(file: ModelFile, expected: set[str], names: Iterable[str]) -> None:
    for name in names:
        if name not in expected:
            raise ModelFileError(f"{file.path} is refused: it holds {name!r}, which belongs to none of its layers.")
