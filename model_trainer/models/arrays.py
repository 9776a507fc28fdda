"""Weight arrays out of a file, by the name of their layer; nothing but arrays and names is read.

Formats: `.h5`/`.hdf5` of any Keras (a whole model or weights only), `.weights.h5` and `.keras` of Keras 3.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np

from model_trainer.errors import ModelFileError

__all__ = ["assign_arrays", "read_arrays"]

Arrays = dict[str, list[np.ndarray]]


def read_arrays(path: str | Path, model: keras.Model) -> Arrays:
    """Layer name to that layer's arrays, in the order of `layer.weights`.

    Args:
        path: the file.
        model: the network they are for; old `.weights.h5` files name layers only by class and count, so its
            layers are counted in the same way.

    Raises:
        ModelFileError: there is no such file, or it holds no Keras weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path}.")
    try:
        with _opened(path) as file:
            group = file.get("model_weights", file)
            if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                return _legacy(group)
            if "layers" in file:
                return _keras_3(file["layers"], model)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path} is damaged or no Keras file: {error}.") from error
    raise ModelFileError(f"{path} holds no Keras weights.")


def assign_arrays(model: keras.Model, arrays: Arrays, path: str | Path, new: tuple[str, ...] = ()) -> list[str]:
    """Gives the layers of `model` their arrays and returns the names of the layers that took some.

    Args:
        new: layers that may do without, such as a head for other classes.

    Raises:
        ModelFileError: a layer not in `new` finds no arrays, or some of another shape; names the first.
    """
    taken = []
    fitting: list[tuple[keras.Variable, np.ndarray]] = []
    for layer in model.layers:
        if not layer.weights:
            continue
        given = arrays.get(layer.name)
        wanted = [tuple(variable.shape) for variable in layer.weights]
        if given is not None and [array.shape for array in given] == wanted:
            fitting += zip(layer.weights, given, strict=True)
            taken.append(layer.name)
        elif layer.name not in new:
            came = "the file has no such layer" if given is None else f"the file has {[a.shape for a in given]}"
            raise ModelFileError(
                f"{path} does not fit {model.name}: layer {layer.name!r} needs {wanted}, {came}. "
                "Is it a file of the same class?"
            )
    # Only now, so that a file that does not fit leaves the model as it was.
    for variable, array in fitting:
        variable.assign(array)
    return taken


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    source: Path | io.BytesIO = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(source, "r") as file:
        yield file


def _legacy(group: h5py.Group) -> Arrays:
    arrays: Arrays = {}
    for name in _names(group, "layer_names"):
        arrays[name] = [np.asarray(group[name][weight]) for weight in _names(group[name], "weight_names")]
    return {name: values for name, values in arrays.items() if values}


def _names(group: h5py.Group, attribute: str) -> list[str]:
    # An attribute over 64 KiB is stored in numbered parts.
    numbered = (f"{attribute}{number}" for number in itertools.count())
    parts = [attribute] if attribute in group.attrs else itertools.takewhile(group.attrs.__contains__, numbered)
    values = [value for part in parts for value in group.attrs[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _keras_3(layers: h5py.Group, model: keras.Model) -> Arrays:
    by_class = _names_by_class(model)
    arrays: Arrays = {}
    for key, group in layers.items():
        stored = group.get("vars")
        if stored is None or not len(stored):
            continue
        name = stored.attrs.get("name", by_class.get(key, key))
        arrays[str(name)] = [np.asarray(stored[str(number)]) for number in range(len(stored))]
    return arrays


def _names_by_class(model: keras.Model) -> dict[str, str]:
    """Keras 3's name for each layer in a weights file, such as "conv2d_1", to the layer's own name."""
    counts: dict[str, int] = {}
    names = {}
    for layer in model.layers:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        base = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        number = counts.get(base, 0)
        names[base if number == 0 else f"{base}_{number}"] = layer.name
        counts[base] = number + 1
    return names
