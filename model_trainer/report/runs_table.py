"""The table of all runs: their order, the settings in which they differ, and the text of its cells."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest
from model_trainer.report.runs import RunSummary

__all__ = ["differing_settings", "run_cells", "setting_text", "settings_of_all", "sorted_runs"]

NAMES = {"name", "output_dir"}  # settings that the path of a run shows
COLUMNS: dict[str, Callable[[RunSummary], float | str | None]] = {
    "run": lambda run: run.name,
    "started": lambda run: None if run.started is None else run.started.isoformat(),
    "epochs": lambda run: run.num_epochs,
    "state": lambda run: run.state,
    "best": lambda run: run.value,
}


def differing_settings(runs: list[RunSummary]) -> list[str]:
    """Returns the dotted names of the settings that are not equal in all runs, in the order of their declaration.

    Runs whose settings cannot be read are ignored.
    """
    readable = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in readable for name in settings)
    missing = object()

    def differs(name: str) -> bool:
        first = readable[0].get(name, missing)
        return any(settings.get(name, missing) != first for settings in readable)

    return [name for name in names if name not in NAMES and differs(name)]


def settings_of_all(runs: list[RunSummary], names: list[str]) -> list[str]:
    """Returns those of `names` that fit a table: all runs have them, and they mean the same in all of them.

    Of choices of different types, such as two kinds of sources, only the type remains.
    """
    readable = [run.settings for run in runs if run.settings]
    choices = tuple(f"{name.removesuffix('type')}" for name in names if name.endswith(".type"))
    return [
        name
        for name in names
        if all(name in settings for settings in readable) and (name.endswith(".type") or not name.startswith(choices))
    ]


def sorted_runs(runs: list[RunSummary], by: str) -> list[RunSummary]:
    """Sorts runs by a column, a metric or a setting; those without a value come last.

    Args:
        by: "run", "started", "epochs", "state", "best", or the name of a metric or of a setting, in ascending order;
            with a leading "-" in descending order.

    Raises:
        ConfigError: there is no such name.
    """
    name = by.removeprefix("-")
    names = dict.fromkeys([*COLUMNS, *(key for run in runs for key in (*run.metrics, *run.settings))])
    if name not in names:
        raise ConfigError(
            f"should be a column, a metric or a setting of these runs, got {name!r}.{nearest(name, names)}",
            "--sort",
        )
    values = {id(run): _value(run, name) for run in runs}
    present = [run for run in runs if values[id(run)] is not None]
    # Numbers before text: a setting may be 0.1 or "auto".
    present.sort(key=lambda run: (isinstance(values[id(run)], str), values[id(run)]), reverse=by.startswith("-"))
    return present + [run for run in runs if values[id(run)] is None]


def _value(run: RunSummary, name: str) -> float | str | None:
    value = COLUMNS[name](run) if name in COLUMNS else run.metrics.get(name, run.settings.get(name))
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, (int, float, str)) else json.dumps(value)


def run_cells(run: RunSummary) -> dict[str, str]:
    """Returns the text of the run's cells by column, such as `{"epochs": "3/5", "state": "stopped", ...}`."""
    best = ""
    if run.source:
        where = run.source if run.best_epoch is None else f"epoch {run.best_epoch}"
        best = f"{run.metric} {run.value:.4f} ({where})"
    return {
        "run": run.name,
        "started": "" if run.started is None else f"{run.started:%Y-%m-%d %H:%M}",
        "epochs": f"{run.num_epochs}/{'?' if run.max_epochs is None else run.max_epochs}",
        "state": run.state,
        "best": best,
    }


def setting_text(value: Any) -> str:
    """Formats a setting for a cell: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
