"""The settings of a run that differ from the defaults, and those that differ between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined

from model_trainer.config import to_plain
from model_trainer.errors import ModelTrainerError
from model_trainer.report.run_files import RunFiles
from model_trainer.run.run import Run
from model_trainer.run.run_html import option_groups

__all__ = ["ChangedSetting", "changed_settings", "different_settings", "options_file"]


@dataclass(frozen=True)
class ChangedSetting:
    """A setting that differs from its default.

    Attributes:
        name: dotted, such as "training.epochs".
        value: lines.
        default: None if it has none.
    """

    name: str
    value: list[str]
    default: str | None


def changed_settings(run: RunFiles) -> list[ChangedSetting]:
    """The settings that differ from the defaults of `Run`."""
    if not run.run:
        return []
    try:
        groups = option_groups(Run.load(str(run.path / options_file(run))))
    except ModelTrainerError:  # an option of another version, or code of the user's own, which a report does not run
        groups = None
    if groups is not None:
        changed = [option for group in groups for option in group["changed"]]
        return [ChangedSetting(option.name, option.value, option.default) for option in changed]
    defaults = _flat(_defaults())
    return [
        ChangedSetting(name, [value], defaults.get(name))
        for name, value in _flat(run.run).items()
        if defaults.get(name) != value
    ]


def options_file(run: RunFiles) -> str:
    """The name of the file that has all settings."""
    return "training_options.json" if run.options else "folds.json"


def different_settings(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs: names, and the value in each run, "" where it has none.

    The name of the run and the folder of its results are left out.
    """
    flat = [{**_flat(run.run), "weights_used": str(run.options.get("weights_used", ""))} for run in runs]
    names = dict.fromkeys(name for each in flat for name in each if name not in ("name", "output_dir"))
    rows = [(name, [each.get(name, "") for each in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _defaults() -> dict[str, Any]:
    values = {}
    for name, info in Run.model_fields.items():
        default = info.get_default(call_default_factory=True, validated_data={})
        if default is not PydanticUndefined:
            values[info.alias or name] = to_plain(default)
    return values


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Values by dotted names; a list is one value, and a choice is named by its type."""
    flat: dict[str, str] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            flat |= _flat(item, f"{name}.")
        else:
            flat[name.removesuffix(".type")] = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    return flat
