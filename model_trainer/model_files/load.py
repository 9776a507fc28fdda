"""A trained model from its file: the network is rebuilt from its description, and only arrays are read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import keras
import numpy as np
from pydantic import Field, model_validator

from model_trainer.config import Config
from model_trainer.display.pages import render_table
from model_trainer.errors import ConfigError, ModelFileError
from model_trainer.model_files.arrays import assign_arrays, find_arrays
from model_trainer.model_files.container import ModelFile, open_model_file
from model_trainer.model_files.description import read_description_file
from model_trainer.model_files.files import read_description
from model_trainer.model_files.undescribed import how_to_describe, load_undescribed, load_with_keras
from model_trainer.model_files.untrusted import TRUST, refuse_code_in_config, refuse_dangerous, refuse_unfitting
from model_trainer.model_files.variant import variant_of_file
from model_trainer.network.build import build_network
from model_trainer.network.own_model import stage_own_model
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.network import AnyNetwork, NetworkField, OwnModel
from model_trainer.run.run_html import value_text
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.tasks.classification import Classification
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
        outputs = self._compute(images)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        # Without an activation the file's outputs are those of the step.
        found = self.task.probabilities(outputs) if self.task.head_activation == "none" else outputs[0]
        return np.asarray(keras.ops.convert_to_numpy(found), np.float32)

    def _repr_html_(self) -> str:
        height, width, channels = self.spec.target_size
        return render_table(
            self.model.name,
            {
                "file": str(self.path),
                "input": f"{height} × {width} × {channels}, {self.spec.preprocess_func}",
                "parameters": f"{self.model.count_params():,}",
                "task": value_text(self.task),
                "classes": f"{len(self.classes)}: {', '.join(self.classes[:20])}{', …' * (len(self.classes) > 20)}",
            },
        )

    @functools.cached_property
    def _compute(self) -> Callable[[np.ndarray], Any]:
        """From uint8 images to the outputs; compiled where Keras runs on TensorFlow, for batches of any size."""

        def compute(images: Any) -> Any:
            return self.model(self.spec.preprocess(images), training=False)

        if keras.backend.backend() != "tensorflow":
            return compute
        import tensorflow as tf

        signature = tf.TensorSpec([None, *self.spec.target_size], tf.uint8)
        return tf.function(compute, autograph=False, input_signature=[signature])


class _Description(Config):
    """What model_spec.json says of the answers."""

    task: Task = Classification()
    classes: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[float, ...] | None = None
    variant: Literal["imagenet"] | None = None  # see variants.py

    @model_validator(mode="after")
    def _one_threshold_each(self) -> Self:
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ConfigError(
                f"should have one value for each of {len(self.classes)} classes, got {len(self.thresholds)}.",
                "thresholds",
            )
        return self


class _NetworkOnly(Config):
    """What it says of the network."""

    network: NetworkField


def load_model(
    path: str | os.PathLike[str],
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
) -> TrainedModel:
    """Loads an output folder (its best model, otherwise the final one), one of its `.hdf5` files, or a file of Keras.

    The network is rebuilt from the description, and only arrays are read from the file: an untrusted file runs no
    code. A model that is the user's own code or object needs `trust`.

    Args:
        trust: whether code that the file names may be imported and run, such as the user's own model class, and
            networks of any size be built.
        spec, classes: of a file that Model Trainer did not write: the network that it holds, such as "mobilenet_v2",
            and the names of its outputs, in their order.

    Raises:
        ModelFileError: there is no such file, it is damaged, not one of ours without `spec` and `classes`, needs
            `trust`, or holds what no model file needs.

    Example:
        >>> model = load_model("output/vgg19-20261121-120000")
        >>> model = load_model("dogs.h5", spec="mobilenet_v2", classes=["beagle", "pug"])
    """
    path = find_model_file(path)
    with open_model_file(path) as file:
        description = _description(file)
        if description is None:
            if (spec is None) != (classes is None):
                given, missing = ("--spec", "--classes") if classes is None else ("--classes", "--spec")
                raise ModelFileError(f"{given} is there, but {missing} is not. {how_to_describe(file)}")
            if spec is None or classes is None:
                raise ModelFileError(
                    f"{path} does not say how its images are prepared: it carries no model_spec, and there is no "
                    f"model_spec.json beside it. It is not a file of Model Trainer. {how_to_describe(file)}"
                )
            network, spec, task = load_undescribed(file, spec, classes, trust)
            return TrainedModel(network.model, spec, task, tuple(classes), path)
        if spec is not None or classes is not None:
            raise ModelFileError(f"{path} says itself which network and classes it has; leave spec and classes out.")
        return _load_described(file, description, trust)


def _load_described(file: ModelFile, description: Mapping[str, Any], trust: bool) -> TrainedModel:
    path = file.path
    try:
        spec = ModelSpec.from_description(description, trust=trust)
        rest = _Description.from_dict(_answers(description))
        network = _network(description, trust)
        if network is not None and not trust:
            refuse_dangerous(spec, network, rest.task)
    except (ConfigError, ModelFileError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    # Files from before the variant was noted say it by their own config.
    variant = rest.variant if "variant" in description else variant_of_file(spec, file)
    num_classes = len(rest.classes)
    if network is None:  # only its file knows what the user's own model is
        model = _staged(load_with_keras(path), spec, rest.task, num_classes, path).model
    elif isinstance(network, OwnModel):
        network_of_own = _staged(network.make(num_classes), spec, rest.task, num_classes, path)
        model = network_of_own.model
        assign_arrays(file, find_arrays(file, model, exact=True, paths=network_of_own.paths))
    else:
        if not trust:
            refuse_code_in_config(file)
            refuse_unfitting(file, spec, network, rest.task, num_classes, variant)
        try:
            model = build_network(spec, network, rest.task, num_classes, variant=variant).model
        except ConfigError as error:
            raise ModelFileError(f"{path}: {error}") from error
        assign_arrays(file, find_arrays(file, model, exact=True))
    return TrainedModel(model, spec, rest.task, rest.classes, path, rest.thresholds)


def _staged(model: keras.Model, spec: ModelSpec, task: Task, num_classes: int, path: Path) -> TwoStageNetwork:
    """The author's own model with the task's activation, also where an older version saved logits."""
    try:
        return stage_own_model(model, None, spec, task, num_classes, trains=False)
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error


def find_model_file(path: str | os.PathLike[str]) -> Path:
    """The model file that `path` means: itself, or in a folder `model_max_acc.hdf5`, otherwise `final_model.hdf5`."""
    path = files.as_path(path)
    if not files.is_folder(path):
        if not files.exists(path):
            raise ModelFileError(f"There is no model file or output folder {path}.")
        return path
    for name in ("model_max_acc.hdf5", "final_model.hdf5"):
        if files.is_file(path / name):
            return path / name
    raise ModelFileError(
        f"{path} holds neither model_max_acc.hdf5 nor final_model.hdf5; is it the output of a run? One that "
        "was stopped in its first epoch has them after --resume."
    )


def _description(file: ModelFile) -> dict[str, Any] | None:
    description = read_description(file)
    beside = file.path.with_name("model_spec.json")
    if description is None and files.is_file(beside):
        return read_description_file(beside)
    return description


def _answers(description: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: description[key] for key in ("task", "classes", "thresholds", "variant") if key in description}
    if isinstance(found.get("task"), Mapping):
        # Predicting needs no loss, and the user's own may be code or an object that JSON only names.
        task = {key: value for key, value in found["task"].items() if key != "loss"}
        if isinstance(task.get("outputs"), list):
            task["outputs"] = [
                {key: value for key, value in output.items() if key != "loss"}
                if isinstance(output, Mapping)
                else output
                for output in task["outputs"]
            ]
        found["task"] = task
    return found


def _network(description: Mapping[str, Any], trust: bool) -> AnyNetwork | None:
    """The declared network; None for a live model of the user's, which is only in its file."""
    data = description.get("network", {})
    own = data.get("model") if isinstance(data, Mapping) else None
    if not isinstance(own, Mapping) or own.get("type") != "Live":
        return _NetworkOnly.from_dict({"network": data}).network
    if not trust:
        named = str(own.get("object"))[:100]
        raise ModelFileError(
            f"its network is a model of the author's own ({named}), which only Keras can load, and that runs what the "
            f"file says. {TRUST}"
        )
    return None
