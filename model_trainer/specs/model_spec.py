"""The spec of a backbone: its class, the size of its images, and their preprocessing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from model_trainer.config import Config
from model_trainer.dotted import is_safe
from model_trainer.errors import ConfigError, DataError, ModelFileError, StorageError
from model_trainer.specs.preprocess import check_preprocessing, is_dotted, preprocess, takes_arguments
from model_trainer.specs.table import TABLE, canonical_class, table_name
from model_trainer.storage import files

__all__ = ["ModelSpec"]

HOW_TO_TRUST = "say --trust (in Python: trust=True)"
_OLDER_NAMES = ("model", "klass")  # of the field `class`, in keras-model-specs


class ModelSpec(Config):
    """The input that a backbone expects: size and preprocessing of its images.

    In a run a string is accepted, too: `Run(spec="mobilenet_v2")`, or the path of a `model_spec.json`.

    Args:
        class_: `class` in JSON, which Python accepts, too: the dotted path of a callable that builds a Keras model,
            such as `keras.applications.vgg19.VGG19` or your own function. None only if the run has its own network.
        name: a display name.
        preprocess_func: a name from `specs/preprocess.py`, or the dotted path of your own `f(images, *args)`.
        preprocess_args: the arguments of that function, on the scale of the pixels, 0 to 255: for the mean functions
            one per channel, in RGB order; for `mean_std_normalization` all means, then all standard deviations.
        target_size: `(height, width, channels)` of the images, in pixels.
        kwargs: keyword arguments for the class.
        resize: how an image is resized to `target_size`: "crop" keeps the aspect ratio and crops the center, "pad"
            keeps it and pads with `background`, "squash" distorts.
        interpolation: the interpolation method.
        background: RGB, 0 to 255: the color behind transparent pixels, and of padding.

    Raises:
        ConfigError: a field is unknown, missing or wrong; the message names it.

    Example:
        >>> spec = ModelSpec(**{
        ...     "class": "keras.applications.vgg19.VGG19",
        ...     "preprocess_func": "bgr_mean_subtraction",
        ...     "preprocess_args": [123.68, 116.779, 103.939],
        ...     "target_size": [224, 224, 3],
        ... })
        >>> spec == ModelSpec.named("vgg19", name=None)
        True
        >>> ModelSpec.named("mobilenet_v2", target_size=[96, 96, 3]).preprocess(np.array([0, 127.5, 255]))
        array([-1.,  0.,  1.], dtype=float32)
    """

    class_: str | None = Field(None, alias="class")
    name: str | None = None
    preprocess_func: str = "none"
    preprocess_args: tuple[FiniteFloat, ...] | None = None
    target_size: tuple[int, int, int]
    kwargs: dict[str, Any] = {}
    resize: Literal["crop", "squash", "pad"] = "crop"
    interpolation: Literal["bilinear", "bicubic", "nearest", "area", "lanczos3"] = "bilinear"
    background: tuple[int, int, int] = (255, 255, 255)

    @classmethod
    def named(cls, name: str, /, **overrides: Any) -> Self:
        """The spec of a `keras.applications` model, as its ImageNet weights expect it.

        Args:
            name: of the model, such as "resnet50"; `model-trainer specs` lists all.
            overrides: fields that differ; a `preprocess_func` replaces the arguments in the table, too.

        Raises:
            ConfigError: there is no such model, and the message suggests the nearest name; or an override is wrong.

        Example:
            >>> ModelSpec.named("resnet50").target_size
            (224, 224, 3)
        """
        table_key = table_name(name)
        entry = TABLE[table_key]
        spec: dict[str, Any] = {"name": table_key, "target_size": (entry.native_size, entry.native_size, 3)}
        if not {"class", "class_", *_OLDER_NAMES} & overrides.keys():
            spec["class"] = entry.class_
        if "preprocess_func" not in overrides or overrides["preprocess_func"] == entry.preprocessing.function:
            spec["preprocess_func"], spec["preprocess_args"] = entry.preprocessing
        return cls(**(spec | overrides))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trust: bool = False) -> Self:
        """Loads a `model_spec.json`, of a run or written by keras-model-specs.

        Args:
            path: the file.
            trust: also accept a class or preprocess function outside `keras.applications` and this package; using
                such a spec runs that code.

        Raises:
            StorageError: the file cannot be read.
            ModelFileError: the file contains no spec, or names code that is not trusted.
        """
        try:
            data = json.loads(files.read_text(path))
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"{os.fspath(path)} could not be read: {error.strerror or error}.") from error
        except (ValueError, RecursionError) as error:  # not JSON, or not text
            raise ModelFileError(f"{os.fspath(path)} is not a JSON file: {error}.") from error
        try:
            return cls.from_description(data, trust=trust)
        except (ConfigError, ModelFileError) as error:
            raise ModelFileError(f"{os.fspath(path)}: {error}") from error

    @classmethod
    def from_description(cls, data: Any, *, trust: bool = False) -> Self:
        """Extracts the spec from the content of a `model_spec.json`, which has further keys.

        Args:
            data: the parsed JSON.
            trust: as in `load`.

        Raises:
            ConfigError: a field of the spec is missing or wrong.
            ModelFileError: `data` is not a JSON object, or names code that is not trusted.
        """
        if not isinstance(data, Mapping):
            raise ModelFileError(f"should contain a JSON object with a spec, got a {type(data).__name__}.")
        names = {info.alias or key for key, info in cls.model_fields.items()} | set(_OLDER_NAMES)
        spec = {key: value for key, value in data.items() if key in names}
        if not takes_arguments(str(spec.get("preprocess_func"))):
            spec.pop("preprocess_args", None)  # keras-model-specs wrote them, and ignored them
        result = cls.from_dict(spec)
        for field, dotted in (("class", result.class_), ("preprocess_func", result.preprocess_func)):
            if not trust and dotted is not None and is_dotted(dotted) and not is_safe(dotted):
                raise ModelFileError(
                    f"`{field}` names {dotted}, code from outside Keras and this package, and using it runs it. "
                    f"If you trust the file's author, {HOW_TO_TRUST}."
                )
        return result

    def changed_all(self, changes: Mapping[str, Any]) -> Self:
        """As `Config.changed_all`; a new `preprocess_func` without arguments drops those of the old one."""
        # Otherwise a single change could not replace a function with arguments by one without.
        function = changes.get("preprocess_func")
        if function is not None and not takes_arguments(str(function)):
            changes = {"preprocess_args": None, **changes}
        return super().changed_all(changes)

    def preprocess(self, images: Any) -> Any:
        """Preprocesses images as the backbone expects them.

        Works eagerly, in a `tf.function` and in `tf.data`.

        Args:
            images: NumPy array or tensor, uint8 or float, 0 to 255, RGB: one image or a batch, of any shape that ends
                in the channels of `target_size`. It is not modified.

        Returns:
            New float32 images of the same type and shape.

        Raises:
            DataError: the images have another number of channels.
            ConfigError: the user's own function cannot be imported or called, or changes the shape.
        """
        shape = getattr(images, "shape", None)
        num_channels = self.target_size[2]
        if shape is None:
            raise DataError(f"preprocess takes a NumPy array or a tensor, got a {type(images).__name__}.")
        # In a graph the rank of a tensor, or its channels, may be unknown.
        rank_known = getattr(shape, "rank", 0) is not None
        if rank_known and (len(shape) == 0 or shape[-1] not in (num_channels, None)):
            raise DataError(f"images should end in {num_channels} channels, as in target_size, got {tuple(shape)}.")
        return preprocess(images, self.preprocess_func, self.preprocess_args or ())

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, data: Any) -> Any:
        if isinstance(data, str):  # as from --set: a name in the table, or a file
            try:
                return (cls.load(data) if data.endswith(".json") else cls.named(data)).to_dict()
            except ModelFileError as error:
                in_python = f"declare it as ModelSpec.load({data!r}, trust=True)"
                raise ConfigError(f"is wrong: {str(error).replace(HOW_TO_TRUST, in_python)}") from None
            except ConfigError as error:
                raise ConfigError(error.problem) from None  # about the spec, not about its name
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        for former in _OLDER_NAMES:
            if former not in data:
                continue
            if "class" in data or "class_" in data:
                raise ConfigError(f"is an older name of `class`, which is also given. Leave {former!r} out.", former)
            data["class"] = data.pop(former)
        if data.get("preprocess_func", "") is None:  # as keras-model-specs wrote fields that were not set
            data["preprocess_func"] = "none"
        return data

    @field_validator("class_")
    @classmethod
    def _check_class(cls, path: str | None) -> str | None:
        if path is None or is_dotted(path):
            return canonical_class(path) if path else path
        try:
            cure = f" ModelSpec.named({table_name(path)!r}) knows that name."
        except ConfigError:
            cure = ""
        raise ConfigError(f"should be a dotted path such as 'keras.applications.vgg19.VGG19', got {path!r}.{cure}")

    @field_validator("target_size", mode="before")
    @classmethod
    def _check_target_size(cls, size: Any) -> Any:
        numbers = _integers(size)
        if len(numbers) != 3 or min(numbers) < 1:
            raise ConfigError(f"should be three positive integers [height, width, channels], got {repr(size)[:100]}.")
        return numbers

    @field_validator("background", mode="before")
    @classmethod
    def _check_background(cls, color: Any) -> Any:
        numbers = _integers(color)
        if len(numbers) != 3 or min(numbers) < 0 or max(numbers) > 255:
            raise ConfigError(f"should be a color of three integers from 0 to 255 (RGB), got {color!r}.")
        return numbers

    @field_validator("preprocess_args")
    @classmethod
    def _without_empty(cls, arguments: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return arguments or None

    @model_validator(mode="after")
    def _check_preprocessing(self) -> Self:
        check_preprocessing(self.preprocess_func, self.preprocess_args, self.target_size[2])
        return self


def _integers(value: Any) -> tuple[int, ...]:
    """The integers of a list, including NumPy's; empty if it is not a list of integers."""
    if not isinstance(value, (list, tuple)):
        return ()
    if not all(isinstance(number, Integral) and not isinstance(number, bool) for number in value):
        return ()
    return tuple(int(number) for number in value)
