"""The temperature that calibrates a model's probabilities, in its output folder's `model_spec.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from model_trainer.errors import ModelFileError
from model_trainer.model_files.description import read_description_file
from model_trainer.storage import files

__all__ = ["read_temperature", "write_temperature"]

KEY = "calibration"


def write_temperature(model_file: PurePath, temperature: float | None) -> None:
    """Stores the temperature of a model file in the `model_spec.json` beside it; None removes it.

    Each model file of a run has its own.

    Raises:
        ModelFileError: `model_spec.json` is missing or damaged.
        StorageError: it cannot be written.
    """
    path = model_file.with_name("model_spec.json")
    description = read_description_file(path)
    before = description.pop(KEY, None)
    stored = dict(before) if isinstance(before, Mapping) else {}
    stored.pop(model_file.name, None)
    if temperature is not None:
        stored[model_file.name] = {"temperature": temperature}
    if stored:
        description[KEY] = stored
    if stored != (before or {}):
        files.write_text(path, json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def read_temperature(model_file: PurePath) -> float | None:
    """Returns the temperature that is stored for a model file; None if there is none.

    Raises:
        ModelFileError: it is not a positive number.
    """
    path = model_file.with_name("model_spec.json")
    if not files.is_file(path):
        return None
    calibration: Any = read_description_file(path).get(KEY)
    stored: Any = calibration.get(model_file.name) if isinstance(calibration, Mapping) else None
    if stored is None:
        return None
    temperature: Any = stored.get("temperature") if isinstance(stored, Mapping) else stored
    is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not is_number or not math.isfinite(temperature) or temperature <= 0:
        raise ModelFileError(f"{path}: the temperature should be a number above 0, got {temperature!r}.")
    return float(temperature)
