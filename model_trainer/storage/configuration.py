"""The configuration of storages, which belongs to no run: profile, endpoint, region, cache and default folders.

A value comes from the command line, or else an environment variable, or else `model-trainer.toml`, or else it is the
default. `current()` returns the values; `all_values()` also the source of each.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from model_trainer.errors import ConfigError
from model_trainer.storage.configuration_file import FileValue, read_configuration_files
from model_trainer.storage.configuration_settings import SETTINGS, Setting

__all__ = ["Configuration", "Value", "all_values", "current", "set_by_option"]

# Child processes, such as the workers of an endpoint, inherit the options of the command line in this variable.
_OPTIONS = "MODEL_TRAINER_STORAGE_OPTIONS"
_VARIABLES = (
    _OPTIONS, "MODEL_TRAINER_CONFIG", "XDG_CONFIG_HOME", "HOME",
    *(variable for setting in SETTINGS for variable in setting.variables),
)  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """Settings of storages.

    Attributes:
        profile: a profile of `~/.aws/config`; "" means the default one.
        profile_is_chosen: whether `--profile` names it; it then takes precedence over credentials in variables.
        endpoint: URL of an S3 server; "" means that of the profile, or that of AWS.
        region: "" means that of the profile.
        bucket: the bucket of paths such as s3:///train; "" means that these are an error.
        anonymous: whether requests are unsigned, for public buckets.
        cache_folder: local folder of cached objects.
        cache_bytes: its maximum size; 0 caches nothing.
        listing_seconds: how long a cached listing of a folder is used; 0 caches none.
        retry_seconds: how long a request is retried while a store does not answer.
        output_dir: where runs write that declare no `output_dir`.
    """

    profile: str = ""
    profile_is_chosen: bool = False
    endpoint: str = ""
    region: str = ""
    bucket: str = ""
    anonymous: bool = False
    cache_folder: str = os.path.expanduser("~/.cache/model_trainer")
    cache_bytes: int = 20_000_000_000
    listing_seconds: float = 60.0
    retry_seconds: float = 60.0
    output_dir: str = "output"


class Value(NamedTuple):
    """A setting, its value, and its source: "default", "model-trainer.toml line 3", "AWS_REGION" or "--region"."""

    setting: Setting
    value: Any
    source: str


def current() -> Configuration:
    """The configuration of this process; files are read again after a variable has changed.

    Raises:
        ConfigError: a value is wrong; the message names its file and line, variable or option.
    """
    return _configuration(tuple(map(os.environ.get, _VARIABLES)))


@functools.lru_cache(maxsize=1)
def _configuration(variables: tuple[str | None, ...]) -> Configuration:
    values = all_values()
    chosen = any(value.setting.field == "profile" and value.source == value.setting.option for value in values)
    return Configuration(**{value.setting.field: value.value for value in values}, profile_is_chosen=chosen)


current.cache_clear = _configuration.cache_clear  # type: ignore[attr-defined]  # for tests, which change files


def all_values() -> list[Value]:
    """The value of every setting and its source; raises ConfigError as `current`."""
    options = json.loads(os.environ.get(_OPTIONS) or "{}")
    in_files = read_configuration_files()
    defaults = {field.name: field.default for field in fields(Configuration)}
    return [_value_of(setting, options, in_files, defaults[setting.field]) for setting in SETTINGS]


def set_by_option(setting: Setting, text: str) -> None:
    """Sets a value from the command line, for this process and those that it starts; raises ConfigError."""
    _parse(setting, text, setting.option)
    options = json.loads(os.environ.get(_OPTIONS) or "{}")
    os.environ[_OPTIONS] = json.dumps({**options, setting.name: text})


def _value_of(setting: Setting, options: dict[str, str], in_files: dict[str, FileValue], default: Any) -> Value:
    if setting.name in options:
        return Value(setting, _parse(setting, options[setting.name], setting.option), setting.option)
    for variable in setting.variables:
        if os.environ.get(variable):
            return Value(setting, _parse(setting, os.environ[variable], variable), variable)
    if setting.name in in_files:
        return Value(setting, *in_files[setting.name])
    return Value(setting, default, "default")


def _parse(setting: Setting, text: str, source: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        received = "" if hasattr(error, "is_secret") else f", got {text!r}"
        raise ConfigError(f"{error}{received}.", source) from None
