"""The settings of a run that differ from the defaults, and those that differ between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined

from model_trainer.config import to_plain
from model_trainer.errors import ModelTrainerError
from model_trainer.report.json_files import shortened
from model_trainer.report.run_files import RunFiles
from model_trainer.run.run import Run
from model_trainer.run.run_html import option_groups
from model_trainer.run.settings import flatten

__all__ = ["ChangedSetting", "changed_settings", "different_settings", "options_file"]

MAX_SETTINGS, MAX_LINES = 300, 40  # rows of the table, and lines of one value


@dataclass(frozen=True)
class ChangedSetting:
    """A setting that differs from its default.

    Attributes:
        name: dotted, such as "training.epochs".
        value: lines of text.
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
        changed = [option for group in groups for option in group["changed"]][:MAX_SETTINGS]
        return [_bounded(ChangedSetting(option.name, option.value, option.default)) for option in changed]
    defaults = _flat(_defaults())
    changes = [(name, value) for name, value in _flat(run.run).items() if defaults.get(name) != value]
    return [_bounded(ChangedSetting(name, [value], _default(name, defaults))) for name, value in changes[:MAX_SETTINGS]]


def _bounded(setting: ChangedSetting) -> ChangedSetting:
    value = [shortened(line) for line in setting.value[:MAX_LINES]]
    return ChangedSetting(shortened(setting.name), value, setting.default and shortened(setting.default))


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
    different = [(name, [shortened(each) for each in values]) for name, values in rows if len(set(values)) > 1]
    return different[:MAX_SETTINGS]


def _defaults() -> dict[str, Any]:
    values = {}
    for name, info in Run.model_fields.items():
        default = info.get_default(call_default_factory=True, validated_data={})
        if default is not PydanticUndefined:
            values[info.alias or name] = to_plain(default)
    return values


def _default(name: str, defaults: Mapping[str, str]) -> str | None:
    """The default of a setting, or of the choice or list that it is part of."""
    while name and name not in defaults:
        name = name.rpartition(".")[0]
    return defaults.get(name)


def _flat(value: Any) -> dict[str, str]:
    """Values as text by dotted names; a choice is named by its type."""
    return {
        shortened(name.removesuffix(".type")): item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        for name, item in flatten(value, whole_lists=True)
    }
