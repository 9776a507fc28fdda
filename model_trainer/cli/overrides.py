"""Loads a run from a file, and applies `--set training.epochs=30`."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_trainer.errors import ConfigError, DataError
from model_trainer.storage import files

if TYPE_CHECKING:
    from model_trainer.run.run import Run

__all__ = ["load_run", "with_overrides"]


def load_run(path: str, trust: bool) -> Run:
    """Loads the run that a `.py` file defines as `run`, or that is in a `training_options.json`."""
    from model_trainer.run.run import Run

    file = files.as_path(path)
    if file.suffix == ".json":
        return Run.load(file, trust)
    if file.suffix != ".py":
        raise DataError(f"RUN should be a .py file that defines `run`, or a training_options.json; got {path}.")
    if "://" in path:
        raise DataError(f"{path} is Python code in a store. Copy it to this machine, or give a training_options.json.")
    if not files.is_file(file):
        raise DataError(f"There is no file {path}.")
    sys.path.insert(0, str(Path(files.real_path(file)).parent))  # so that the file can import modules next to it
    run = runpy.run_path(str(file), run_name="model_trainer_run").get("run")
    if not isinstance(run, Run):
        raise ConfigError(f"{path} should define `run = Run(...)`, and does not.")
    return run


def with_overrides(run: Run, overrides: Sequence[str]) -> Run:
    """Returns `run` with every `name=value` applied; a value is parsed as JSON if it is JSON, otherwise a string."""
    changes = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set needs name=value, such as --set training.epochs=5; got {override!r}.")
        if name.strip() == "spec.name":
            raise ConfigError(
                f"is only a display name, and does not change the network. Use --set spec={text.strip()}", "spec.name"
            )
        changes[name.strip()] = _value(text.strip())
    return run.changed_all(changes)


def _value(text: str) -> Any:
    if text == "None":
        return None
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except ValueError:
        return text
