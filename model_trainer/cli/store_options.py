"""Adds to each command that takes paths the options of object stores, and an error for a mistyped URL."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from model_trainer.storage.configuration import set_by_option
from model_trainer.storage.configuration_settings import SETTINGS
from model_trainer.storage.configured_paths import configured_path

__all__ = ["with_store_options"]

_PATHS = {"CSV", "DIR", "FILE", "PATH"}  # metavars of the options that are paths
_SETTINGS = {setting.field: setting for setting in SETTINGS if setting.option}


def with_store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--profile`, `--endpoint-url` and `--region` to a command, and checks its arguments that are paths."""
    signature = inspect.signature(command, eval_str=True)
    paths = {name for name, parameter in signature.parameters.items() if _is_path(parameter)}

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        for field, setting in _SETTINGS.items():
            text = values.pop(field)
            if text is not None:
                set_by_option(setting, text)
        return command(**{name: _configured(value) if name in paths else value for name, value in values.items()})

    del run.__wrapped__  # typer would look there for the parameters
    parameters = [*signature.parameters.values(), *map(_parameter, _SETTINGS)]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _is_path(parameter: inspect.Parameter) -> bool:
    kinds = (parameter.default, *get_args(parameter.annotation))
    info = next((each for each in kinds if isinstance(each, ArgumentInfo | OptionInfo)), None)
    return isinstance(info, ArgumentInfo) or (info is not None and info.metavar in _PATHS)


def _configured(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_configured(each) for each in value]
    return configured_path(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


def _parameter(field: str) -> inspect.Parameter:
    setting = _SETTINGS[field]
    option = typer.Option(
        setting.option, metavar=setting.metavar, help=setting.help, rich_help_panel="Object stores", show_default=False
    )
    return inspect.Parameter(
        field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
