"""Every error that Model Trainer raises on purpose.

```text
ModelTrainerError
├── ConfigError(ValueError)     a declared value is wrong; names the field
├── DataError(ValueError)       a file, label or box is wrong; names file and line
├── ModelFileError(ValueError)  a model file is damaged, foreign or dangerous
├── StorageError(OSError)       a path cannot be read or written; names it
├── DeviceError(RuntimeError)   a device is missing, or its memory too small; names what to lower
├── DivergedError(RuntimeError) training gave no finite loss, and how often it was rolled back
├── StoppedError(RuntimeError)  a signal came before there was anything to save
├── HostError(RuntimeError)     another machine of the run did not come, or is gone; `--resume` goes on
└── MissingExtra(ImportError)   names the pip command
```

Each says what was expected, what came, and the cure; the command line prints it without a traceback.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DeviceError",
    "DivergedError",
    "HostError",
    "MissingExtra",
    "ModelFileError",
    "ModelTrainerError",
    "StoppedError",
    "StorageError",
]


class ModelTrainerError(Exception):
    """The root; `exit_code` is what the command line ends with."""

    exit_code = 2


class ConfigError(ModelTrainerError, ValueError):
    """A declared value is wrong.

    Args:
        problem: what was expected, what came, and the cure.
        field: dotted name of the field, such as `training.epochs`; empty when it concerns the whole.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        self.problem = problem
        self.field = field
        super().__init__(f"`{field}` {problem}" if field else problem)

    def under(self, parent: str) -> ConfigError:
        """The same error, seen from the value that holds this one in its field `parent`."""
        return ConfigError(self.problem, ".".join(part for part in (parent, self.field) if part))


class DataError(ModelTrainerError, ValueError):
    """A file, label or box is wrong."""


class ModelFileError(ModelTrainerError, ValueError):
    """A model file is damaged, foreign or dangerous."""


class StorageError(ModelTrainerError, OSError):
    """A path cannot be read or written."""


class DeviceError(ModelTrainerError, RuntimeError):
    """A device is missing, or its memory is too small."""


class DivergedError(ModelTrainerError, RuntimeError):
    """Training gave no finite loss and could not recover."""

    exit_code = 3


class HostError(ModelTrainerError, RuntimeError):
    """Another machine of the run did not come, or is gone; with `--resume` on all of them it goes on."""

    exit_code = 75


class StoppedError(ModelTrainerError, RuntimeError):
    """A signal came before there was anything to save."""

    exit_code = 75


class MissingExtra(ModelTrainerError, ImportError):
    """An optional dependency is missing.

    Args:
        what: what needs it, such as "s3:// paths".
        package: the missing package, such as "boto3".
        extra: the extra that brings it, such as "aws".
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} need {package}. Run: .venv/bin/pip install -e '.[{extra}]'")
