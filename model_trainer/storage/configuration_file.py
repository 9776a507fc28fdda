"""Reads `model-trainer.toml`; errors name the file and line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest, shown
from model_trainer.storage.configuration_settings import SETTINGS

__all__ = ["FILE_NAME", "FileValue", "read_configuration_files"]

FILE_NAME = "model-trainer.toml"
_VARIABLE = "MODEL_TRAINER_CONFIG"
_MAX_BYTES = 1_000_000
_SECRET = re.compile(r"secret|access_?key|password|token|credential", re.IGNORECASE)
_TABLES = {setting.name.partition(".")[0] for setting in SETTINGS if "." in setting.name}


class FileValue(NamedTuple):
    """The value of a setting in a file, and where it is: "model-trainer.toml line 3"."""

    value: Any
    where: str


def read_configuration_files() -> dict[str, FileValue]:
    """The values in the files, by the name of the setting.

    The file of the current folder wins over that of the user; MODEL_TRAINER_CONFIG names one that replaces both.

    Raises:
        ConfigError: a file cannot be read, or contains something unknown or of the wrong type.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return _read(Path(named), must_exist=True)
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    here = _read(Path(FILE_NAME))
    if "s3.endpoint" in here:
        _check_owner(Path(FILE_NAME), here["s3.endpoint"].where)
    return _read(Path(folder).expanduser() / FILE_NAME) | here


def _check_owner(path: Path, where: str) -> None:
    """Refuses an untrusted file that would send requests, signed with the user's credentials, to another server."""
    if not hasattr(os, "getuid"):
        return
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o002:
        who = "any user may write to this file" if status.st_mode & 0o002 else "this file belongs to another user"
        raise ConfigError(
            f"{where} sets the endpoint to which your credentials are sent, and {who}. If that is intended, name the "
            f"file in {_VARIABLE}."
        )


def _read(path: Path, must_exist: bool = False) -> dict[str, FileValue]:
    try:
        text = _text_of(path)
        content = tomllib.loads(text)
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigError(f"names {path}, which does not exist.", _VARIABLE) from error
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a UTF-8 text file.") from error
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = f" line {where[1]}" if where else ""
        reason = str(error).partition(" (at ")[0]
        raise ConfigError(
            f'{path}{line} is not TOML: {reason}. Expected lines such as: region = "eu-central-1"'
        ) from None
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or as many nested brackets
        raise ConfigError(f"{path} cannot be read: a value is too long, or nested too deeply.") from error
    return dict(_checked_settings(path, text, content))


def _text_of(path: Path) -> str:
    if path.is_fifo():  # opening it would wait for a writer
        raise ConfigError(f"{path} is not a file.")
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} has more than 1 MB, the limit for a configuration file.")
    return content.decode("utf-8")


def _checked_settings(path: Path, text: str, content: Mapping[str, Any]) -> Iterator[tuple[str, FileValue]]:
    by_name = {setting.name: setting for setting in SETTINGS}
    for name, value in _flatten(content):
        where = f"{path} line {_line_of(text, name)}"
        if name not in by_name:
            raise ConfigError(f"{where}: {_unknown(shown(name), value)}")
        try:
            yield name, FileValue(by_name[name].parse(value), where)
        except ValueError as error:
            received = "" if hasattr(error, "is_secret") else f", got {value!r}"
            raise ConfigError(f"{where}: {name} {error}{received}.") from None


def _flatten(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if key in _TABLES and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def _unknown(name: str, value: Any) -> str:
    names = [setting.name for setting in SETTINGS]
    if isinstance(value, Mapping):
        return f"[{name}] is not a table of this file.{nearest(name, sorted(_TABLES))}"
    if name in _TABLES:
        return f"{name} is a table. Write [{name}], and below it lines such as: {_example(name)}"
    if _SECRET.search(name):
        return (
            f"{name} is not a setting: credentials do not belong in this file. Put them into ~/.aws/credentials, "
            "with `aws configure`, and name their profile here."
        )
    table, _, key = name.rpartition(".")
    # A key in the wrong table, or in none, is matched by its last name.
    alike = [other for other in names if other.rpartition(".")[2] == key]
    hint = f" Did you mean {alike[0]!r}?" if alike else nearest(name, names)
    if not hint and table:
        hint = nearest(key, [other.rpartition(".")[2] for other in names if other.startswith(f"{table}.")])
    return f"{name} is not a setting.{hint or ' The settings are ' + ', '.join(names) + '.'}"


def _example(table: str) -> str:
    return {"s3": 'region = "eu-central-1"', "cache": 'size = "200 GB"'}.get(table, "...")


def _line_of(text: str, name: str) -> int:
    """The line of a setting, from 1; TOML allows `[s3]` above `region`, `s3.region` and `s3 = {region = ...}`."""
    key = name.rpartition(".")[2]
    current = ""
    first_alike = 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*[\"']?([\w.-]+)[\"']?\s*\]", line)
        if header:
            current = header[1]
            if current == name:
                return number
        left = re.split(r"[=#]", line, maxsplit=1)[0].replace('"', "").replace("'", "").replace(" ", "")
        if left and ".".join(filter(None, (current, left.strip()))) == name:
            return number
        if not first_alike and re.search(rf"(?<![\w-]){re.escape(key)}[\"']?\s*=", line):
            first_alike = number
    return first_alike or 1
