"""The errors that Model Trainer raises.

```text
ModelTrainerError
├── ConfigError(ValueError)     a declared value is wrong; names the field
├── DataError(ValueError)       a file, label or box is wrong; names file and line
├── ModelFileError(ValueError)  a model file is damaged, not supported or unsafe
├── StorageError(OSError)       a path cannot be read or written; names it
│   └── UnavailableError        an object store does not answer; continue with `--resume`
├── DeviceError(RuntimeError)   a device is missing, or out of memory; names what to reduce
├── DivergedError(RuntimeError) training diverged; names the number of rollbacks
├── StoppedError(RuntimeError)  a signal came before there was anything to save
├── HostError(RuntimeError)     another machine of the run did not join, or is lost; continue with `--resume`
└── MissingExtra(ImportError)   an optional dependency is missing; names the pip command
```

The message says what was expected, what was received, and the cure; the command line prints it without a traceback.
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
    "UnavailableError",
]


class ModelTrainerError(Exception):
    """The base of all errors; `exit_code` is the exit code of the command line."""

    exit_code = 2


class ConfigError(ModelTrainerError, ValueError):
    """A declared value is wrong.

    Args:
        problem: what was expected, what was received, and the cure.
        field: dotted name of the field, such as `training.epochs`; empty if no single field is wrong.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        self.problem = problem
        self.field = field
        super().__init__(f"`{field}` {problem}" if field else problem)

    def under(self, parent: str) -> ConfigError:
        """Returns the error with its field below the field `parent` of an outer value."""
        return ConfigError(self.problem, ".".join(name for name in (parent, self.field) if name))


class DataError(ModelTrainerError, ValueError):
    """A file, label or box is wrong."""


class ModelFileError(ModelTrainerError, ValueError):
    """A model file is damaged, not supported or unsafe."""


class StorageError(ModelTrainerError, OSError):
    """A path cannot be read or written."""


class UnavailableError(StorageError):
    """An object store does not answer, in spite of retries; `--resume` continues the run once it does."""

    exit_code = 75


class DeviceError(ModelTrainerError, RuntimeError):
    """A device is missing, or out of memory."""


class DivergedError(ModelTrainerError, RuntimeError):
    """Training diverged and could not recover: the loss was not finite or spiked."""

    exit_code = 3


class HostError(ModelTrainerError, RuntimeError):
    """Another machine of the run did not join, or is lost; `--resume` on all machines continues the run."""

    exit_code = 75


class StoppedError(ModelTrainerError, RuntimeError):
    """A signal came before there was anything to save."""

    exit_code = 75


class MissingExtra(ModelTrainerError, ImportError):
    """An optional dependency is missing.

    Args:
        what: what needs it, such as "s3:// paths".
        package: the missing package, such as "boto3".
        extra: the extra that installs it, such as "s3".
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} need {package}. Run: .venv/bin/pip install -e '.[{extra}]'")
