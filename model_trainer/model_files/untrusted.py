"""Limits what the description in an untrusted file may ask for: networks of keras.applications as large as the file.

Whatever a description names is imported and called, so names must be on the short lists here, and values plain. The
general rule for dotted paths, `dotted.is_safe`, is too permissive for that: our own code can also write files.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras

from model_trainer.errors import ConfigError, ModelFileError, ModelTrainerError
from model_trainer.model_files.arrays import find_arrays
from model_trainer.model_files.container import ModelFile
from model_trainer.network.build import build_network
from model_trainer.run.network import AnyNetwork, Network
from model_trainer.specs import ModelSpec
from model_trainer.tasks.task import Task

__all__ = ["TRUST", "building", "refuse_code_in_config", "refuse_dangerous", "refuse_unfitting", "without_values"]

TRUST = "If the file is your own, or you trust its author, pass --trust (in Python: trust=True)."

_APPLICATION = re.compile(r"keras\.applications(\.[a-z0-9_]+)?\.[A-Z]\w*")
_PREPROCESS = re.compile(r"keras\.applications\.[a-z0-9_]+\.preprocess_input")
_OUR_NETWORKS = {"model_trainer.testing.small_backbone"}

MAX_INPUT_PIXELS = 2048 * 2048 * 4  # values of an image; a batch of 32 takes 2 GB
MAX_LAYERS = 64  # of a head; also the maximum number of outputs


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1000


_SAFE_KWARGS: dict[str, Callable[[Any], bool]] = {
    "alpha": _is_factor,
    "depth_multiplier": _is_factor,
    "dropout": _is_factor,
    "dropout_rate": _is_factor,
    "minimalistic": _is_bool,
    "include_preprocessing": _is_bool,
    "include_top": _is_bool,
    "batch_normalization": _is_bool,
    "weights": lambda value: value is None,  # anything else is a file to read or to download
    "pooling": lambda value: value in (None, "avg", "max"),
    "classes": lambda value: _is_factor(value) and isinstance(value, int),
    "name": lambda value: isinstance(value, str) and re.fullmatch(r"\w{1,100}", value) is not None,
}

# Modules that Keras writes for the networks of keras.applications, and the classes in them that run code.
_CONFIG_MODULES = re.compile(
    r"keras(\.(layers|initializers|regularizers|constraints|activations|models|src\.(models|applications|ops)\.[\w.]+))?"
)
_CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "function", "__lambda__"}


def refuse_dangerous(spec: ModelSpec, network: AnyNetwork, task: Task) -> None:
    """Refuses a description that names code, or asks for sizes, that only `trust` allows.

    Raises:
        ModelFileError: it does; the message names the field.
    """
    if not isinstance(network, Network):
        raise ModelFileError(
            f"its network is a model of the author's own, and loading it runs the author's code. {TRUST}"
        )
    if spec.class_ is not None and not _APPLICATION.fullmatch(spec.class_) and spec.class_ not in _OUR_NETWORKS:
        raise ModelFileError(f"`class` names {spec.class_}, which is not a network of keras.applications. {TRUST}")
    if "." in spec.preprocess_func and not _PREPROCESS.fullmatch(spec.preprocess_func):
        raise ModelFileError(
            f"`preprocess_func` names {spec.preprocess_func}, which is not a preprocess_input of keras.applications. "
            f"{TRUST}"
        )
    for name, value in spec.kwargs.items():
        if name not in _SAFE_KWARGS or not _SAFE_KWARGS[name](value):
            raise ModelFileError(f"`kwargs` gives {name[:60]}={_shown(value)} to {spec.class_}. {TRUST}")
    if math.prod(spec.target_size) > MAX_INPUT_PIXELS:
        raise ModelFileError(
            f"`target_size` is {list(spec.target_size)}; images of more than {MAX_INPUT_PIXELS:,} values fill "
            f"the memory. {TRUST}"
        )
    if len(network.dense) > MAX_LAYERS or len(task.outputs) > MAX_LAYERS:
        raise ModelFileError(f"its head has more than {MAX_LAYERS} layers or outputs. {TRUST}")


def refuse_unfitting(
    file: ModelFile, spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int, variant: str | None
) -> None:
    """Compares every shape of the network with the file's before memory is allocated for the network.

    Raises:
        ModelFileError: a layer has another shape, is missing or superfluous; the message names the first.
    """

    def compare() -> None:
        with building(file):
            built = build_network(spec, network, task, num_classes, variant=variant, shapes_only=True)
        find_arrays(file, built.model, exact=True)

    without_values(compare)


@contextlib.contextmanager
def building(file: ModelFile) -> Iterator[None]:
    """Turns what Keras raises for impossible settings into a ModelFileError that names the file."""
    try:
        yield
    except ConfigError as error:
        raise ModelFileError(f"{file.path}: {error}") from error
    except ModelTrainerError:  # such as that of a signal
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelFileError(f"{file.path} describes a network that cannot be built: {reason}.") from error


def without_values(compare: Callable[[], None]) -> None:
    """Calls `compare` so that the variables that it creates have shapes but take no memory."""

    def run() -> None:
        with keras.StatelessScope(initialize_variables=False):
            compare()

    # Keras keeps a list, for each thread, of variables that are not initialized, and would initialize them at the next
    # opportunity. The list ends with the thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()


def refuse_code_in_config(file: ModelFile) -> None:
    """Refuses a file whose Keras config names code, although the config is never deserialized.

    Raises:
        ModelFileError: it names a Lambda or a class that is not Keras' own, so it is not that of the described network.
    """
    if file.config is None:
        return
    try:
        config = json.loads(file.config)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{file.path} is damaged: its model_config is not JSON ({type(error).__name__})."
        ) from error
    for item in _objects(config):
        name, module = item.get("class_name"), item.get("module")
        if name is None and module is None:
            continue
        registered = item.get("registered_name")
        is_not_keras = module is not None and not _CONFIG_MODULES.fullmatch(str(module))
        # Classes registered by others are named "Package>Name"; Keras' own names have no package.
        if is_not_keras or name in _CODE or ">" in str(registered):
            full_name = ".".join(str(each) for each in (module, name) if each)
            raise ModelFileError(
                f"{file.path}: its model_config names {full_name[:100]}, which is the author's own code. {TRUST}"
            )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield value
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
