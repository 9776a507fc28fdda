"""Dotted paths of Python code: importing one, naming an object, and which paths in a file are safe.

Importing executes code, so a path that was read from a file is imported only if `is_safe` allows it or the user gave
`--trust`.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from model_trainer.errors import ConfigError, StoppedError

__all__ = ["import_dotted", "is_safe", "name_of"]

# The models of Keras and their preprocessing; these modules contain nothing else.
_KERAS_APPLICATIONS = re.compile(r"keras\.applications(\.[a-z0-9_]+)?\.([A-Z]\w*|preprocess_input)")
_SAFE = {"model_trainer.testing.small_backbone"}  # no more of this package: it has functions that write files


def import_dotted(path: str) -> Any:
    """Returns the object at `path`, such as `keras.applications.vgg19.VGG19` or `my_code.Nets.small`.

    Raises:
        ConfigError: there is no such module, it has no such name, or importing it raised an error.
    """
    names = path.split(".")
    for split in range(len(names) - 1, 0, -1):
        module_name = ".".join(names[:split])
        try:
            value: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # The last names may be a class and its attribute; a failed import inside the user's module is an error.
            if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
                continue
            raise ConfigError(f"{path!r} could not be imported: {error}.") from error
        except StoppedError:  # a signal
            raise
        except Exception as error:
            raise ConfigError(f"{path!r} could not be imported: {type(error).__name__}: {error}.") from error
        for name in names[split:]:
            if not hasattr(value, name):
                raise ConfigError(f"{path!r} could not be imported: {module_name} has no {name!r}.")
            value = getattr(value, name)
        return value
    raise ConfigError(
        f"{path!r} could not be imported: there is no module {names[0]!r}. "
        "Is it in the current folder, or in an installed package?"
    )


def is_safe(path: str) -> bool:
    """Whether a path in a file may be imported without `--trust`: `keras.applications` and the test network."""
    return path in _SAFE or _KERAS_APPLICATIONS.fullmatch(path) is not None


def name_of(value: Any) -> str:
    """Returns the dotted name of a class or function, or of an object's class."""
    definition = value if hasattr(value, "__qualname__") else type(value)
    return f"{definition.__module__}.{definition.__qualname__}"
