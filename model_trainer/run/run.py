"""The run: everything that one training needs, in one frozen value that can be written to JSON and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator

import model_trainer.run.trackers  # noqa: F401  # so that its callbacks are known by name
from model_trainer.config import Config
from model_trainer.dotted import is_safe
from model_trainer.errors import ConfigError, DataError, StorageError
from model_trainer.pipeline.augment import (
    KERAS_TRAINER,
    Augmentation,
    RandomFlip,
    RandomResizedCrop,
    split_augment,
)
from model_trainer.run.callbacks import Callback
from model_trainer.run.hardware import Hardware
from model_trainer.run.network import Network, NetworkField
from model_trainer.run.observers import LayerNorms, Observer
from model_trainer.run.training import Training
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source
from model_trainer.specs import ModelSpec
from model_trainer.storage import configuration, files
from model_trainer.storage.configured_paths import configured_path
from model_trainer.tasks.classification import Classification
from model_trainer.tasks.task import Task
from model_trainer.user_code import Call, Live

__all__ = ["Run", "load_data"]


# Keys whose values are imported as code; "klass" and "class_" are other spellings of the spec's "class".
_CODE = {"type", "class", "class_", "klass", "model", "preprocess_func"}


class Run(Config):
    """One training, from images to model files. Only `spec` and `train_data` are required.

    Fields:
        name: beginning of the output folder's name, `output_dir/name-<yyyymmdd-hhmmss>`.
        spec: the backbone and its preprocessing.
        train_data: the training images.
        val_data: the validation images; without them there is no validation.
        weights: initial weights of the backbone: "imagenet", None for random ones, a weights or model file, or "auto".
        network: head, freezing and regularization; or the user's own Keras model.
        augment: augmentations of the training images, in order; crops come first.
        task: what the network learns: `Classification()` or `MultiLabel()`.
        training: epochs, batch size, learning rate, optimizer, schedule, precision, seed.
        hardware: the devices to train on.
        callbacks: any `keras.callbacks.Callback`, live or as `Call("my_code.MyCallback", ...)`.
        observers: the statistics of gradients, weights and updates that are logged; `()` logs none.
        output_dir: folder of the output folders; the default is that of `model-trainer.toml`, or else "output".

    Raises:
        ConfigError: a field is unknown, missing or wrong; the message names it.

    Example:
        >>> run = Run(
        ...     name="mobilenet_v2",
        ...     spec=ModelSpec.named("mobilenet_v2"),
        ...     train_data=ImageFolder("data/train"),
        ...     val_data=ImageFolder("data/val"),
        ...     training=Training(epochs=20, learning_rate=1e-3, optimizer=AdamW()),
        ... )
        >>> run.changed("training.epochs", 30).training.epochs
        30
    """

    name: str = "run"
    spec: ModelSpec
    train_data: Source
    val_data: Source | None = None
    weights: Literal["auto", "imagenet"] | str | None = "auto"
    network: NetworkField = Network()
    augment: tuple[Augmentation, ...] = (RandomResizedCrop(), RandomFlip())
    task: Task = Classification()
    training: Training = Training()
    hardware: Hardware = Hardware()
    callbacks: tuple[Callback | Call | Live, ...] = ()
    observers: tuple[Observer, ...] = (LayerNorms(),)
    output_dir: PathText = Field(default_factory=lambda: configuration.current().output_dir)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w.\-]*", name):
            raise ConfigError(f"should be letters, digits, '.', '_' and '-', as it names a folder, got {name!r}.")
        return name

    @field_validator("val_data", "weights", mode="before")
    @classmethod
    def _may_be_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() in ("none", "null") else value

    @field_validator("weights")
    @classmethod
    def _no_mistyped_url(cls, weights: str | None) -> str | None:
        return weights if weights is None else configured_path(weights)

    @field_validator("augment", "callbacks", "observers", mode="before")
    @classmethod
    def _may_be_one_or_none(cls, value: Any) -> Any:
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return ()
        if isinstance(value, str) and value.lower() == "keras_trainer":
            return KERAS_TRAINER
        return value if isinstance(value, (list, tuple)) else (value,)

    @field_validator("augment")
    @classmethod
    def _crops_first(cls, augment: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
        split_augment(augment)
        return augment

    @classmethod
    def load(cls, path: str | Path, trust: bool = False) -> Self:
        """Reads a run from a `training_options.json`.

        Args:
            path: the file, also in an object store.
            trust: whether the file may name code other than `keras.applications.*` and this package's. Building the
                run executes the code that it names.

        Raises:
            DataError: the file is missing or is not JSON.
            ConfigError: it does not describe a run, names code that needs `trust`, or had a live Python object.
        """
        data = _read_run(path)
        if not trust:
            _refuse_foreign_code(data, "")
        return cls.from_dict(data)

    def _repr_html_(self) -> str:
        from model_trainer.run.run_html import run_html

        return run_html(self)


class _Data(Config):
    train_data: Source
    val_data: Source | None = None


def load_data(path: str | Path, trust: bool = False) -> tuple[Source, Source | None]:
    """Reads the training and the validation data of a `training_options.json`; None if it has no validation data.

    Only the data is read: the run may contain live objects elsewhere. Arguments and errors as in `Run.load`.
    """
    data = {name: value for name, value in _read_run(path).items() if name in ("train_data", "val_data")}
    if not trust:
        _refuse_foreign_code(data, "")
    sources = _Data.from_dict(data)
    return sources.train_data, sources.val_data


def _read_run(path: str | Path) -> dict[str, Any]:
    try:
        data = json.loads(files.read_text(path))
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(data, Mapping) or not isinstance(data.get("run"), Mapping):
        raise ConfigError(f"is missing in {path}; is it the training_options.json of a run?", "run")
    return dict(data["run"])


def _refuse_foreign_code(value: Any, field: str) -> None:
    """Raises ConfigError at the first dotted path to code that needs `--trust`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{field}.{key}".lstrip(".")
            is_code = key in _CODE or (key == "path" and "arguments" in value)  # a Call under its own field names
            if is_code and isinstance(item, str) and "." in item and not is_safe(item):
                raise ConfigError(
                    f"names the code {item!r}, which would be executed. "
                    "Add --trust if you know where the file comes from.",
                    inner,
                )
            _refuse_foreign_code(item, inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_foreign_code(item, f"{field}.{index}")
