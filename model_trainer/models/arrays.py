"""Weight arrays out of a file, by the name of their layer or its place; nothing but arrays and names is read.

Formats: `.h5`/`.hdf5` of any Keras (a whole model or weights only), `.weights.h5` and `.keras` of Keras 3.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import keras

from model_trainer.errors import ModelFileError
from model_trainer.models.container import ModelFile, reading
from model_trainer.models.scan import StoredArray
from model_trainer.models.structure import LONGEST_NAME

__all__ = ["Fit", "assign_arrays", "find_arrays"]

Layers = Mapping[str, Sequence[StoredArray]]
Fit = list[tuple[keras.Layer, list[tuple[keras.Variable, StoredArray]]]]


def find_arrays(file: ModelFile, model: keras.Model, new: Sequence[str] = (), exact: bool = False) -> Fit:
    """Which array of the file belongs to which variable of `model`; only names and shapes are looked at.

    By the names of the layers; where those do not fit, by their order, as the names that Keras counts ("conv2d_7")
    depend on what was built before.

    Args:
        new: layers that may do without, such as a head for other classes.
        exact: whether every array of the file must belong to `model`.

    Raises:
        ModelFileError: the file holds no Keras weights, arrays of no layer, or those of another network; names the
            first layer that does not fit.
    """
    root = file.scanned.groups[""]
    if "model_weights" in file.scanned.groups:
        _refuse_others(file, {"model_weights", "optimizer_weights"}, root)
        is_legacy, stored = True, _legacy(file, "model_weights")
    elif {"layer_names", "layer_names0"} & file.scanned.attributes[""].keys():
        is_legacy, stored = True, _legacy(file, "")
    elif "layers" in file.scanned.groups:
        _refuse_others(file, {"layers", "optimizer", "vars"}, root)
        is_legacy, stored = False, _keras_3(file)
    else:
        raise ModelFileError(f"{file.path} holds no Keras weights.")
    layers = [layer for layer in model.layers if layer.weights]
    by_name = stored if is_legacy else _by_own_names(file, stored)
    by_place = _by_order(stored, layers, new) if is_legacy else _by_class(stored, model)
    problem = ""
    for candidate in (by_name, by_place):
        fit, misfit = _fit(layers, candidate, new, exact, is_legacy)
        if not misfit:
            return fit
        problem = problem or misfit
    raise ModelFileError(f"{file.path} does not fit {model.name}: {problem}. Is it a file of the same class?")


def assign_arrays(file: ModelFile, fit: Fit) -> list[str]:
    """Reads the arrays that `find_arrays` found into their variables; returns the names of the layers.

    Raises:
        ModelFileError: one of them is damaged.
    """
    for layer, pairs in fit:
        for variable, stored in pairs:
            with reading(file.path):
                values = stored.read()
            variable.assign(values)
        if hasattr(layer, "finalize_state"):  # Normalization computes with copies of its variables
            layer.finalize_state()
    return [layer.name for layer, _ in fit]


def _fit(
    layers: list[keras.Layer], candidate: Layers, new: Sequence[str], exact: bool, is_legacy: bool
) -> tuple[Fit, str]:
    """The pairs, and what does not fit."""
    found: Fit = []
    for layer in layers:
        # Keras 2 and its format put the trainable weights first, whatever the order in which they were made.
        variables = sorted(layer.weights, key=lambda v: not v.trainable) if is_legacy else list(layer.weights)
        given = candidate.get(layer.name)
        wanted = [tuple(variable.shape) for variable in variables]
        if given is not None and [stored.shape for stored in given] == wanted:
            found.append((layer, list(zip(variables, given, strict=True))))
        elif layer.name not in new:
            came = "no such layer" if given is None else f"{[stored.shape for stored in given]}"
            return found, f"layer {layer.name!r} needs {wanted}, the file has {came}"
    over = candidate.keys() - {layer.name for layer, _ in found} if exact else ()
    return found, f"it has no layer {min(over)!r}, which the file has" if over else ""


def _by_order(stored: Layers, layers: list[keras.Layer], new: Sequence[str]) -> Layers:
    """The file's layers one after the other for those of the backbone; a head is told by its names."""
    backbone = [layer.name for layer in layers if layer.name not in new]
    rest = [name for name in stored if name not in new]
    given = {ours: stored[theirs] for ours, theirs in zip(backbone, rest, strict=False)}
    # What is over goes under a name of no layer, so that it is noticed where all must fit.
    over = {f"{name} (left over)": stored[name] for name in rest[len(backbone) :]}
    return over | given | {name: stored[name] for name in new if name in stored}


def _legacy(file: ModelFile, group: str) -> dict[str, list[StoredArray]]:
    prefix = f"{group}/".lstrip("/")
    names = _names(file, group, "layer_names")
    _refuse_others(file, {*names, "top_level_model_weights"}, file.scanned.groups[group])
    layers: dict[str, list[StoredArray]] = {}
    known: set[str] = set()
    for name in names:
        if prefix + name not in file.scanned.groups:
            raise ModelFileError(f"{file.path} is damaged: it names the layer {name!r}, but holds none of that name.")
        paths = [f"{prefix}{name}/{weight}" for weight in _names(file, prefix + name, "weight_names")]
        missing = next((path for path in paths if path not in file.scanned.arrays), None)
        if missing is not None:
            raise ModelFileError(f"{file.path} is damaged: it names the array {missing!r}, but holds none there.")
        if paths:
            layers[name] = [file.scanned.arrays[path] for path in paths]
        known.update(paths)
    within = (path for path in file.scanned.arrays if path.startswith(prefix))
    _refuse_others(file, known, (path for path in within if not path.startswith(f"{prefix}top_level_model_weights/")))
    return layers


def _names(file: ModelFile, group: str, attribute: str) -> list[str]:
    attributes = file.scanned.attributes[group]
    # An attribute over 64 KiB is stored in numbered parts.
    numbered = (f"{attribute}{number}" for number in itertools.count())
    parts = [attribute] if attribute in attributes else itertools.takewhile(attributes.__contains__, numbered)
    names: dict[str, None] = {}
    for name in (name for part in parts for name in file.texts(group, part, LONGEST_NAME) or ()):
        pieces = name.split("/")
        if not name.isprintable() or any(piece in ("", ".", "..") for piece in pieces):
            raise ModelFileError(f"{file.path} is refused: {name[:40]!r} in {attribute!r} is no name of a layer's.")
        if name in names:
            raise ModelFileError(f"{file.path} is refused: {attribute!r} of {group or '/'!r} says a name twice.")
        names[name] = None
    return list(names)


def _keras_3(file: ModelFile) -> dict[str, list[StoredArray]]:
    """Keras 3's own key for each layer, such as "conv2d_1", to its arrays."""
    layers: dict[str, list[StoredArray]] = {}
    for key in file.scanned.groups["layers"]:
        place = f"layers/{key}/vars"
        members = file.scanned.groups.get(place, [])
        paths = [f"{place}/{number}" for number in range(len(members))]
        if any(path not in file.scanned.arrays for path in paths):
            raise ModelFileError(f"{file.path} is damaged: the arrays of {key!r} are not numbered from 0.")
        if paths:
            layers[key] = [file.scanned.arrays[path] for path in paths]
    return layers


def _by_own_names(file: ModelFile, stored: Layers) -> Layers:
    """By the layers' own names, which newer files of Keras 3 carry; otherwise by the keys."""
    own = {key: file.texts(f"layers/{key}/vars", "name", LONGEST_NAME) or [key] for key in stored}
    return {own[key][0]: arrays for key, arrays in stored.items()}


def _by_class(stored: Layers, model: keras.Model) -> Layers:
    """By class and count: Keras 3 calls the second Conv2D of a network "conv2d_1", whatever its name is."""
    counts: dict[str, int] = {}
    left = dict(stored)
    named: dict[str, Sequence[StoredArray]] = {}
    for layer in model.layers:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        base = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        number = counts.get(base, 0)
        counts[base] = number + 1
        key = base if number == 0 else f"{base}_{number}"
        if key in left:
            named[layer.name] = left.pop(key)
    return {f"{key} (left over)": arrays for key, arrays in left.items()} | named


def _refuse_others(file: ModelFile, known: set[str], found: Iterable[str]) -> None:
    for name in found:
        if name not in known:
            raise ModelFileError(f"{file.path} is refused: it holds {name!r}, which belongs to none of its layers.")
