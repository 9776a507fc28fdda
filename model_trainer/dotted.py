"""Dotted paths of code: import one, name one, and tell which may come out of a file.

Importing runs code, so a path that was read from a file is only followed when `is_safe` says so or the
user gave `--trust`.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from model_trainer.errors import ConfigError

__all__ = ["import_dotted", "is_safe", "name_of"]

# Keras' models and their preprocessing; these modules hold nothing else.
_OF_KERAS = re.compile(r"keras\.applications(\.[a-z0-9_]+)?\.([A-Z]\w*|preprocess_input)")
_OURS = {"model_trainer.testing.small_backbone"}  # not the rest of us: it also writes files, and trusts


def import_dotted(path: str) -> Any:
    """The object at `path`, such as `keras.applications.vgg19.VGG19` or `my_code.Nets.small`.

    Raises:
        ConfigError: no module or no such name in it; says which part failed.
    """
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # A parent of the path may be a class; a missing import inside the user's module is an error of its own.
            if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
                continue
            raise ConfigError(f"{path!r} could not be imported: {error}.") from error
        except Exception as error:
            raise ConfigError(f"{path!r} could not be imported: {type(error).__name__}: {error}.") from error
        for name in parts[split:]:
            if not hasattr(found, name):
                raise ConfigError(f"{path!r} could not be imported: {module_name} has no {name!r}.")
            found = getattr(found, name)
        return found
    raise ConfigError(
        f"{path!r} could not be imported: there is no module {parts[0]!r}. Is its folder the current one, or installed?"
    )


def is_safe(path: str) -> bool:
    """Whether a path that came out of a file may be imported without `--trust`: Keras' own models and our small one."""
    return path in _OURS or _OF_KERAS.fullmatch(path) is not None


def name_of(value: Any) -> str:
    """The dotted name of a class or function, or of an object's class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
