"""The runs in a folder: their states, best metrics and settings, as far as the files of their folders show them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import Any

from model_trainer.config import with_present_names
from model_trainer.display.curves import NOT_METRICS
from model_trainer.errors import DataError, StorageError
from model_trainer.run.settings import flatten
from model_trainer.storage import files

__all__ = ["RunSummary", "list_runs"]

OPTIONS, HISTORY, EVALUATION = "training_options.json", "history.csv", "evaluation/evaluation.json"
MAX_DEPTH = 3  # of folders, below the one that is listed
# Folders of a run that contain no other run.
NOT_SEARCHED = {"checkpoints", "evaluation", "logs", "report"}
LOG_TAIL_BYTES = 4096
NUM_THREADS = 16
FROM_EVALUATION, FROM_HISTORY, FROM_TRAINING_DATA = "evaluation", "history", "training data"


@dataclass(frozen=True)
class RunSummary:
    """A run, as far as the files in its output folder show it.

    Attributes:
        name: path of the output folder, relative to the folder that was listed.
        path: the output folder.
        started: local time; None if the folder's name does not contain it.
        num_epochs: number of finished epochs.
        max_epochs: number of declared epochs; None if it is not known.
        state: "finished"; "running", in another process; "failed", with an error; or "stopped", by anything else:
            `--resume` continues the run.
        metric: name of the main metric, such as "accuracy", or "val_accuracy" from the history; empty if there is none.
        value: the best value of the main metric; NaN if there is none.
        interval: its 95 % confidence interval; None if there is none.
        source: where the value is from: "evaluation", "training data" for an evaluation of a run without validation
            data, or "history"; empty if there is none.
        best_epoch: the epoch of the value in the history, counted from 1; None if it is from an evaluation.
        metrics: by name, those of the evaluation, and of the best epoch in the history: of validation, or of training
            in a run without validation.
        settings: every setting of the run by dotted name.
        problem: why files of the run cannot be read; empty if they can.
    """

    name: str
    path: PurePath
    started: datetime | None = None
    num_epochs: int = 0
    max_epochs: int | None = None
    state: str = "stopped"
    metric: str = ""
    value: float = math.nan
    interval: tuple[float, float] | None = None
    source: str = ""
    best_epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def to_dict(self, settings: list[str] | None = None) -> dict[str, Any]:
        """Returns the run as strict JSON types; undefined metrics, and settings that are not finite, are None.

        Args:
            settings: the names of the settings to include; None for all.
        """
        return {
            "run": self.name,
            "path": str(self.path),
            "started": None if self.started is None else self.started.isoformat(),
            "state": self.state,
            "epochs": self.num_epochs,
            "declared_epochs": self.max_epochs,
            "metric": self.metric or None,
            "value": _or_none(self.value),
            "interval": None if self.interval is None else [_or_none(bound) for bound in self.interval],
            "source": self.source or None,
            "best_epoch": self.best_epoch,
            "metrics": {name: _or_none(value) for name, value in self.metrics.items()},
            "settings": {
                name: _strict(value) for name, value in self.settings.items() if settings is None or name in settings
            },
            "problem": self.problem or None,
        }


def list_runs(folder: files.StrPath) -> list[RunSummary]:
    """Lists the runs in a folder and its subfolders, newest first.

    Args:
        folder: of output folders; or one output folder, which may contain others, such as the folds of a run.

    Raises:
        DataError: there is no such folder, or there is no run in it.

    Example:
        >>> files.make_folder("output/pets-20261126-120000")
        >>> options = '{"run": {"training": {"epochs": 5}}}'
        >>> files.write_text("output/pets-20261126-120000/training_options.json", options)
        >>> [(run.name, run.state, run.max_epochs) for run in list_runs("output")]
        [('pets-20261126-120000', 'stopped', 5)]
    """
    parent = files.as_path(folder)
    if not files.is_folder(parent):
        raise DataError(f"There is no folder {parent}. Name the one that holds your runs, `output_dir` of a run.")
    with ThreadPoolExecutor(NUM_THREADS) as threads:  # each waits for several files, which may be in an object store
        runs = list(threads.map(lambda path: _summarize(path, parent), _run_folders(parent, MAX_DEPTH)))
    if not runs:
        raise DataError(f"There is no run in {parent}: none of its folders has a {OPTIONS}.")
    return sorted(runs, key=lambda run: (run.started or datetime.min, run.name), reverse=True)


def _run_folders(folder: PurePath, depth: int) -> Iterator[PurePath]:
    try:
        entries = list(files.scan(folder))
    except StorageError:
        raise
    except OSError:
        return
    if any(entry.name == OPTIONS for entry in entries):
        yield folder
    for entry in entries if depth else ():
        if entry.name not in NOT_SEARCHED and not entry.name.startswith(".") and entry.is_dir():
            yield from _run_folders(folder / entry.name, depth - 1)


def _summarize(path: PurePath, parent: PurePath) -> RunSummary:
    name = str(path)[len(str(parent)) :].lstrip("/\\") or path.name
    values: dict[str, Any] = {}
    problems = []
    for read in (_started, _settings, _history, _evaluation, _state):
        try:
            values = _merged(values, read(path))
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001  # files may hold anything, and one must not hide the other runs
            problems.append(f"{_FILES[read]} cannot be read ({type(error).__name__})")
    return RunSummary(name, path, problem="; ".join(problems), **values)


def _merged(values: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    # The evaluation's metrics come before those of the history, and replace them.
    metrics = new.get("metrics", {})
    rest = {name: value for name, value in values.get("metrics", {}).items() if name not in metrics}
    return values | new | {"metrics": metrics | rest}


def _started(path: PurePath) -> dict[str, Any]:
    stamp = re.search(r"-(\d{8}-\d{6})(?:-\d+)?$", path.name)
    return {"started": datetime.strptime(stamp[1], "%Y%m%d-%H%M%S")} if stamp else {}


def _settings(path: PurePath) -> dict[str, Any]:
    run = with_present_names(json.loads(files.read_text(path / OPTIONS))["run"])
    return {"settings": dict(flatten(dict(run), whole_lists=True)), "max_epochs": int(run["training"]["epochs"])}


def _history(path: PurePath) -> dict[str, Any]:
    if not files.is_file(path / HISTORY):
        return {}
    rows = [
        {name: float(value) for name, value in row.items()}
        for row in csv.DictReader(files.read_text(path / HISTORY).splitlines())
    ]
    if not rows:
        return {}
    # The metrics are in the task's order, the main one first, and those of validation after those of training.
    names = [name for name in rows[0] if name not in NOT_METRICS]
    validated = [name for name in names if name.startswith("val_")] or names
    metric = next((name for name in validated if name not in ("loss", "val_loss")), validated[0])
    sign, loss = (-1 if metric in ("loss", "val_loss") else 1), "val_loss" if "val_loss" in rows[0] else "loss"
    defined = [row for row in rows if not math.isnan(row[metric])] or rows
    best = max(defined, key=lambda row: (sign * row[metric], -row[loss]))  # as in model_max_acc.hdf5
    return {
        "num_epochs": int(rows[-1]["epoch"]),
        "metric": metric,
        "value": best[metric],
        "source": FROM_HISTORY,
        "best_epoch": int(best["epoch"]),
        "metrics": {name: best[name] for name in validated},
    }


def _evaluation(path: PurePath) -> dict[str, Any]:
    if not files.is_file(path / EVALUATION):
        return {}
    content = json.loads(files.read_text(path / EVALUATION))
    metrics = {name: _number(entry["value"]) for name, entry in content["metrics"].items()}
    main = content["main_metric"]
    low, high = content["metrics"][main].get("low"), content["metrics"][main].get("high")
    return {
        "metric": main,
        "value": metrics[main],
        "interval": None if low is None or high is None else (float(low), float(high)),
        "source": FROM_TRAINING_DATA if content.get("data", {}).get("split") == "training" else FROM_EVALUATION,
        "best_epoch": None,
        "metrics": metrics,
    }


def _state(path: PurePath) -> dict[str, Any]:
    if _is_locked(path / "logs"):
        return {"state": "running"}
    if _is_finished(path / "checkpoints"):
        return {"state": "finished"}
    log = path / "logs" / "train.log"
    if files.is_file(log):
        size = files.info(log)
        assert size is not None
        start = max(0, size.size - LOG_TAIL_BYTES)
        lines = files.read_range(log, start, size.size - start).decode(errors="replace").splitlines()
        # A message may have several lines, of which the first has time and level.
        levels = [match[1] for line in lines if (match := re.match(r"\d{4}-\d\d-\d\d \S+ ([A-Z]+) ", line))]
        if levels and levels[-1] == "ERROR":
            return {"state": "failed"}
    return {"state": "stopped"}


def _is_locked(logs: PurePath) -> bool:
    """Whether a process trains in the folder: it holds a lock."""
    if not files.is_folder(logs):
        return False
    try:
        with files.lock(logs, shared=True):  # shared, because others may check at the same time
            return False
    except BlockingIOError:
        return True


def _is_finished(folder: PurePath) -> bool:
    complete = files.complete_folders(folder, "epoch-")
    names = [name for name in sorted(complete) if re.fullmatch(r"epoch-\d+-step-\d+", name)]
    if not names:
        return False
    return bool(json.loads(files.read_text(complete[names[-1]] / "state.json"))["finished"])


_FILES = {
    _started: "the time in the folder's name",
    _settings: OPTIONS,
    _history: HISTORY,
    _evaluation: EVALUATION,
    _state: "the newest checkpoint",
}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _strict(value: Any) -> Any:
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return _or_none(value) if isinstance(value, float) else value
