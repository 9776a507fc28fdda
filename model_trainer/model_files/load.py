"""Loads trained models: the network is rebuilt from its description, and only arrays are read from the file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import keras
from pydantic import Field, model_validator

from model_trainer.config import Config
from model_trainer.errors import ConfigError, ModelFileError
from model_trainer.model_files.arrays import assign_arrays, find_arrays
from model_trainer.model_files.container import ModelFile, open_model_file
from model_trainer.model_files.description import read_description_file
from model_trainer.model_files.files import read_description
from model_trainer.model_files.temperature import read_temperature
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.model_files.undescribed import how_to_describe, load_undescribed, load_with_keras
from model_trainer.model_files.untrusted import TRUST, refuse_code_in_config, refuse_dangerous, refuse_unfitting
from model_trainer.model_files.variant import variant_of_file
from model_trainer.network.build import build_network
from model_trainer.network.own_model import stage_own_model
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.network import AnyNetwork, NetworkField, OwnModel
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.storage.manifest import check_finished
from model_trainer.tasks.classification import Classification
from model_trainer.tasks.task import Task

__all__ = ["TrainedModel", "find_model_file", "load_model"]

PREFERRED = ("model_max_acc.hdf5", "final_model.hdf5")  # in an output folder, the first that exists is loaded


class _Description(Config):
    """The part of model_spec.json that describes the predictions."""

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
    """The part of model_spec.json that describes the network."""

    network: NetworkField


def load_model(
    path: str | os.PathLike[str],
    trust: bool = False,
    *,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
) -> TrainedModel:
    """Loads a trained model.

    The network is rebuilt from its description, and only arrays are read from the file, so an untrusted file runs no
    code. A model that is the user's own code or object needs `trust`. The output folder of a run contains all that is
    needed: `load_model("output/vgg19-20261121-120000")`. A file that Keras wrote needs `spec` and `classes`:
    `load_model("dogs.h5", spec="mobilenet_v2", classes=["beagle", "pug"])`.

    Args:
        path: an output folder, from which the best model is loaded, or else the final one; one of its `.hdf5` files; or
            a model file that Keras wrote.
        trust: whether code that the file names may be imported and run, such as the user's own model class, and
            whether networks of any size may be built.
        spec: for a file that Model Trainer did not write, the network in it, such as "mobilenet_v2".
        classes: for such a file, the names of its outputs in their order.

    Returns:
        A `TrainedModel`.

    Raises:
        ModelFileError: there is no such file, it is damaged, it needs `trust`, it needs `spec` and `classes`, or it
            contains something that no model file needs.
        DataError: the output folder is that of a run in an object store that is not finished, or lacks its model.

    Example:
        >>> from model_trainer.testing import small_backbone
        >>> pooling = keras.layers.GlobalAveragePooling2D()
        >>> logits = keras.layers.Dense(2, activation="softmax")
        >>> keras.Sequential([small_backbone((16, 16, 3)), pooling, logits]).save("pets.h5")
        >>> spec = ModelSpec(
        ...     class_="model_trainer.testing.small_backbone", target_size=(16, 16, 3)
        ... )
        >>> model = load_model("pets.h5", spec=spec, classes=["cat", "dog"])
        >>> model.classes
        ('cat', 'dog')

    """
    folder, path = files.as_path(path), find_model_file(path)
    if path != folder:
        check_finished(folder, path, PREFERRED[: PREFERRED.index(path.name)])
    with open_model_file(path) as file:
        description = _description(file)
        if description is None:
            if (spec is None) != (classes is None):
                present, missing = ("--spec", "--classes") if classes is None else ("--classes", "--spec")
                raise ModelFileError(f"{present} is given, but {missing} is not. {how_to_describe(file)}")
            if spec is None or classes is None:
                raise ModelFileError(
                    f"{path} does not describe how its images are preprocessed: it contains no model_spec, and there "
                    f"is no model_spec.json beside it. Model Trainer did not write it. {how_to_describe(file)}"
                )
            network, spec, task = load_undescribed(file, spec, classes, trust)
            return TrainedModel(network.model, spec, task, tuple(classes), path)
        if spec is not None or classes is not None:
            raise ModelFileError(f"{path} already describes its network and classes; omit spec and classes.")
        return _load_described(file, description, trust)


def _load_described(file: ModelFile, description: Mapping[str, Any], trust: bool) -> TrainedModel:
    path = file.path
    try:
        spec = ModelSpec.from_description(description, trust=trust)
        rest = _Description.from_dict(_prediction_fields(description))
        network = _network(description, trust)
        if network is not None and not trust:
            refuse_dangerous(spec, network, rest.task)
    except (ConfigError, ModelFileError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    # Files from before the variant was recorded reveal it by their Keras config.
    variant = rest.variant if "variant" in description else variant_of_file(spec, file)
    num_classes = len(rest.classes)
    if network is None:  # the user's own live model is described by its file only
        model = _staged(load_with_keras(path), spec, rest.task, num_classes, path).model
    elif isinstance(network, OwnModel):
        staged = _staged(network.make(num_classes), spec, rest.task, num_classes, path)
        model = staged.model
        assign_arrays(file, find_arrays(file, model, exact=True, paths=staged.paths))
    else:
        if not trust:
            refuse_code_in_config(file)
            refuse_unfitting(file, spec, network, rest.task, num_classes, variant)
        try:
            model = build_network(spec, network, rest.task, num_classes, variant=variant).model
        except ConfigError as error:
            raise ModelFileError(f"{path}: {error}") from error
        assign_arrays(file, find_arrays(file, model, exact=True))
    return TrainedModel(model, spec, rest.task, rest.classes, path, rest.thresholds, read_temperature(path))


def _staged(model: keras.Model, spec: ModelSpec, task: Task, num_classes: int, path: Path) -> TwoStageNetwork:
    """The user's own model with the task's activation, even if an older version saved logits."""
    try:
        return stage_own_model(model, None, spec, task, num_classes, trains=False)
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error


def find_model_file(path: str | os.PathLike[str]) -> Path:
    """Finds the model file: `path` itself, or in a folder `model_max_acc.hdf5`, otherwise `final_model.hdf5`.

    Raises:
        ModelFileError: there is none.
    """
    path = files.as_path(path)
    if not files.is_folder(path):
        if not files.exists(path):
            raise ModelFileError(f"There is no model file or output folder {path}.")
        if not files.is_file(path):
            raise ModelFileError(f"{path} is neither a regular file nor a folder.")  # a pipe would be read without end
        return path
    for name in PREFERRED:
        if files.is_file(path / name):
            return path / name
    if files.is_file(path / "folds.json"):
        raise ModelFileError(
            f"{path} is the folder of a k-fold training, with a model in the folder of each fold, such as "
            f"{next((name for name in files.names_in(path) if name.startswith('fold-')), 'fold-1-...')}. Choose one; "
            "evaluate --ensemble mean takes several."
        )
    raise ModelFileError(
        f"{path} contains neither model_max_acc.hdf5 nor final_model.hdf5; is it the output folder of a run? A run "
        "that was stopped in its first epoch has them after --resume."
    )


def _description(file: ModelFile) -> dict[str, Any] | None:
    description = read_description(file)
    spec_file = file.path.with_name("model_spec.json")
    if description is None and files.is_file(spec_file):
        return read_description_file(spec_file)
    return description


def _prediction_fields(description: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: description[key] for key in ("task", "classes", "thresholds", "variant") if key in description}
    if isinstance(fields.get("task"), Mapping):
        # Prediction needs no loss, and the user's own may be code or an object that JSON only names.
        task = {key: value for key, value in fields["task"].items() if key != "loss"}
        if isinstance(task.get("outputs"), list):
            task["outputs"] = [
                {key: value for key, value in output.items() if key != "loss"}
                if isinstance(output, Mapping)
                else output
                for output in task["outputs"]
            ]
        fields["task"] = task
    return fields


def _network(description: Mapping[str, Any], trust: bool) -> AnyNetwork | None:
    """The declared network; None for a user's own live model, which only its file describes."""
    data = description.get("network", {})
    own = data.get("model") if isinstance(data, Mapping) else None
    if not isinstance(own, Mapping) or own.get("type") != "Live":
        return _NetworkOnly.from_dict({"network": data}).network
    if not trust:
        name = str(own.get("object"))[:100]
        raise ModelFileError(
            f"its network is a model of the author's own ({name}), which only Keras can load, and Keras runs the code "
            f"that the file names. {TRUST}"
        )
    return None
