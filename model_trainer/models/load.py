"""A trained model from its file: the network is rebuilt from its description, and only arrays are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model_trainer.config import Config
from model_trainer.dotted import is_safe
from model_trainer.errors import ConfigError, ModelFileError
from model_trainer.models.arrays import assign_arrays, read_arrays
from model_trainer.models.build import build_network
from model_trainer.models.files import read_description
from model_trainer.models.network import NetworkField
from model_trainer.specs import ModelSpec
from model_trainer.tasks.classification import Classification
from model_trainer.tasks.losses import to_probabilities
from model_trainer.tasks.task import Task

__all__ = ["TrainedModel", "find_model_file", "load_model"]


@dataclass(frozen=True)
class TrainedModel:
    """A model that answers.

    Attributes:
        model: float32 `(batch, height, width, channels)`, as `load_image` gives it, to the activation's output.
        spec: preprocessing and size.
        task: decodes.
        classes: names, in the order of the outputs.
        path: the file it came from.
        thresholds: from which probability on each tag is given; None where the task fits none.
    """

    model: keras.Model
    spec: ModelSpec
    task: Task
    classes: tuple[str, ...]
    path: Path
    thresholds: tuple[float, ...] | None = None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """float32 `(batch, num_classes)` from uint8 images `(batch, height, width, channels)`, as `read_image` gives.

        Of several outputs the first answers.
        """
        outputs = self.model(self.spec.preprocess(images), training=False)
        first = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        if self.task.head_activation == "none":
            first = to_probabilities(first, self.task.loss_activation)
        return np.asarray(keras.ops.convert_to_numpy(first), np.float32)


class _Description(Config):
    """What model_spec.json says of the answers."""

    task: Task = Classification()
    classes: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None


class _NetworkOnly(Config):
    """What it says of the network."""

    network: NetworkField


def load_model(path: str | os.PathLike[str], trust: bool = False) -> TrainedModel:
    """Loads an output folder (its best model, otherwise the final one) or one of its `.hdf5` files.

    Args:
        trust: whether code that the file names may be imported and run, such as the user's own model class.

    Raises:
        ModelFileError: there is no such file, it is damaged, not one of ours, or needs `trust`.
    """
    path = find_model_file(path)
    description = read_description(path)
    beside = path.with_name("model_spec.json")
    if description is None and beside.is_file():
        description = _read_json(beside)
    if description is None:
        raise ModelFileError(
            f"{path} does not say how its images are prepared: it carries no model_spec, and there is no "
            f"{beside.name} beside it. It is not a file of Model Trainer."
        )
    try:
        spec = ModelSpec.from_description(description, trust=trust)
        if not trust:
            _refuse_foreign_code(description)
        rest = _Description.from_dict(
            {key: description[key] for key in ("task", "classes", "thresholds") if key in description}
        )
        is_live = description.get("network", {}).get("model", {}).get("type") == "Live"
        network = None if is_live else _NetworkOnly.from_dict({"network": description.get("network", {})}).network
        if rest.thresholds is not None and len(rest.thresholds) != len(rest.classes):
            raise ConfigError(
                f"should have one value for each of {len(rest.classes)} classes, got {len(rest.thresholds)}.",
                "thresholds",
            )
    except (ConfigError, ModelFileError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    if network is None:  # only its file knows what the user's own model is
        model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    else:
        model = build_network(spec, network, rest.task, len(rest.classes)).model
        assign_arrays(model, read_arrays(path, model), path)
    return TrainedModel(model, spec, rest.task, rest.classes, path, rest.thresholds)


def find_model_file(path: str | os.PathLike[str]) -> Path:
    """The model file that `path` means: itself, or in a folder `model_max_acc.hdf5`, otherwise `final_model.hdf5`."""
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise ModelFileError(f"There is no model file or output folder {path}.")
        return path
    for name in ("model_max_acc.hdf5", "final_model.hdf5"):
        if (path / name).is_file():
            return path / name
    raise ModelFileError(f"{path} holds neither model_max_acc.hdf5 nor final_model.hdf5; is it the output of a run?")


def _refuse_foreign_code(description: Mapping[str, Any]) -> None:
    named = []
    network = description.get("network", {})
    if "model" in network:
        is_live = network["model"].get("type") == "Live"
        named.append(network["model"].get("object" if is_live else "type"))
    # A loss of the user's is named too, but never made: predicting needs none.
    for name in named:
        if isinstance(name, str) and "." in name and not is_safe(name):
            raise ModelFileError(
                f"names the code {name!r}. Loading it runs it: add --trust (trust=True) if you know where the "
                "file is from."
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged or no JSON file: {error}.") from error
