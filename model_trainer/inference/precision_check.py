"""Checks of a faster precision against float32, recorded next to the model file in `precision.json`.

A faster precision changes probabilities, and sometimes the predicted class. It is not used before a check on labeled
images has passed; a new model file needs a new check.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from model_trainer.errors import ConfigError
from model_trainer.storage import files
from model_trainer.storage.manifest import update_manifest

__all__ = ["FILE_NAME", "PrecisionCheck", "command", "find_check", "hash_of", "record_check"]

FILE_NAME = "precision.json"


@dataclass(frozen=True)
class PrecisionCheck:
    """The comparison of a faster precision with float32.

    Attributes:
        sha256: of the model file.
        precision: "bfloat16" or "float16".
        engine: "keras" or "openvino".
        data: where the images come from.
        num_images: number of images that were predicted in both precisions.
        same_labels: the fraction of them with the same label, or the same tags, 0 to 1.
        largest_change: the largest change of a probability.
        metric: the name of the main metric.
        before, after: its value in float32, and in the faster precision.
        speed: how many times as fast it was, with batches of `batch_size` images.
        batch_size: see `speed`.
        passed: whether it may be used.
    """

    sha256: str
    precision: str
    engine: str
    data: str
    num_images: int
    same_labels: float
    largest_change: float
    metric: str
    before: float
    after: float
    speed: float
    batch_size: int
    passed: bool


def hash_of(model_file: PurePath) -> str:
    """Returns the SHA-256 of a model file, hexadecimal."""
    digest = hashlib.sha256()
    with files.open_file(model_file) as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def record_check(model_file: PurePath, check: PrecisionCheck) -> PurePath:
    """Writes a check to `precision.json`, where it replaces an earlier one of the same engine and precision.

    Returns:
        The path of the file.

    Raises:
        StorageError: it cannot be written.
    """
    path = model_file.with_name(FILE_NAME)
    stored = _stored(path)
    checks = [
        each
        for each in _checks_of(stored, model_file)
        if each.sha256 == check.sha256 and (each.engine, each.precision) != (check.engine, check.precision)
    ]
    stored[model_file.name] = [asdict(each) for each in (*checks, check)]
    files.write_text(path, json.dumps(stored, indent=2, ensure_ascii=False) + "\n")
    update_manifest(path.parent, FILE_NAME)
    return path


def find_check(model_file: PurePath, precision: str, engine: str | None = None) -> PrecisionCheck:
    """Returns the passed check of a model file in a precision.

    Args:
        engine: "keras" or "openvino"; None for the fastest of those that passed.

    Raises:
        ConfigError: there is no check, it failed, or it was of an earlier model file; the message has the command.
    """
    checks = [
        each
        for each in _checks_of(_stored(model_file.with_name(FILE_NAME)), model_file)
        if each.precision == precision and engine in (None, each.engine)
    ]
    how = f"Run: {command(model_file, precision, engine)}"
    if not checks:
        raise ConfigError(f"{precision} needs a passed check on validation images, and there is none. {how}", _FIELD)
    sha256 = hash_of(model_file)
    current = [each for each in checks if each.sha256 == sha256]
    if not current:
        raise ConfigError(
            f"{precision} needs a passed check on validation images; the one in {FILE_NAME} is of an earlier "
            f"{model_file.name}. {how}",
            _FIELD,
        )
    passed = [each for each in current if each.passed]
    if not passed:
        raise ConfigError(
            f"{precision} did not pass its check on validation images: {current[0].same_labels:.2%} of the labels are "
            f"the same, and {current[0].metric} is {current[0].after:.4f} instead of {current[0].before:.4f}. Use "
            f"float32, or another engine.",
            _FIELD,
        )
    return max(passed, key=lambda each: each.speed)


def command(model_file: PurePath, precision: str, engine: str | None = None) -> str:
    """The command line that checks a precision."""
    return f"model-trainer evaluate {model_file} --precision {precision}" + (f" --engine {engine}" if engine else "")


_FIELD = "precision"
_ADAPTER = TypeAdapter(PrecisionCheck)


def _stored(path: PurePath) -> dict[str, Any]:
    """The content of `precision.json`; empty if there is none, or if it is damaged, which is as good as no check."""
    try:
        content = json.loads(files.read_text(path)) if files.is_file(path) else {}
    except (ValueError, RecursionError):
        return {}
    return dict(content) if isinstance(content, Mapping) else {}


def _checks_of(stored: Mapping[str, Any], model_file: PurePath) -> list[PrecisionCheck]:
    checks: list[PrecisionCheck] = []
    entries = stored.get(model_file.name)
    if not isinstance(entries, list):
        return checks
    for entry in entries:
        with contextlib.suppress(ValidationError):  # of another version, or damaged
            checks.append(_ADAPTER.validate_json(json.dumps(entry), strict=True))
    return checks
