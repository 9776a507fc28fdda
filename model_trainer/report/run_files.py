"""Reads the files in an output folder that the report is made of; any of them may be missing."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, RootModel

from model_trainer.errors import DataError
from model_trainer.report.evaluation_file import EvaluationFile, parsed, read_evaluation
from model_trainer.storage import files

__all__ = ["DataFile", "FindingFile", "RunFiles", "read_run"]

MODELS = ("model_max_acc.hdf5", "final_model.hdf5", "model_min_loss.hdf5", "model_max_sensitivity.hdf5")


class Split(BaseModel):
    """Training or validation data."""

    origin: str = ""
    images: int
    counts: dict[str, int] = {}


class AugmentedExample(BaseModel):
    """A training image, and what augmentation makes of it; files are relative to `report/`."""

    name: str
    label: str = ""
    original: str | None = None
    augmented: list[str] = []
    labels: list[str] = []


class DataFile(BaseModel):
    """The content of `report/data.json`."""

    train: Split | None = None
    val: Split | None = None
    examples: list[AugmentedExample] = []


class FindingExample(BaseModel):
    """See `findings.finding.Example`."""

    name: str
    split: str = ""
    label: str = ""
    detail: str = ""


class FindingFile(BaseModel):
    """See `findings.finding.Finding`."""

    id: str
    level: Literal["fault", "warning", "note"]
    title: str
    why: str = ""
    cure: str = ""
    count: int = 0
    examples: list[FindingExample] = []


class FoldMetric(BaseModel):
    """A metric over the folds of a k-fold training."""

    mean: float | None = None
    standard_deviation: float | None = None
    out_of_fold: float | None = None
    folds: list[float | None] = []


class Fold(BaseModel):
    """One fold: its number, counted from 1, and its output folder in that of the whole."""

    fold: int
    folder: str | None = None


class FoldsFile(BaseModel):
    """The content of `folds.json`, in the folder of a k-fold training."""

    run: dict[str, Any] = {}
    state: str = ""
    folds: list[Fold] = []
    main_metric: str | None = None
    metrics: dict[str, FoldMetric] | None = None


class _Findings(RootModel[list[FindingFile]]):
    pass


class _Object(RootModel[dict[str, Any]]):
    pass


class _Options(BaseModel):
    model_config = ConfigDict(extra="allow")

    run: dict[str, Any]
    versions: dict[str, str] = {}
    command: list[str] | None = None


@dataclass(frozen=True)
class RunFiles:
    """What an output folder contains.

    Attributes:
        path: the folder.
        options: training_options.json; empty if it is missing.
        spec: model_spec.json; empty if it is missing.
        history: the rows of history.csv, one for each epoch.
        steps: the rows of logs/metrics.jsonl about steps.
        evaluation: evaluation/evaluation.json.
        data: report/data.json.
        findings: findings.json; None if it is missing.
        bad_images: paths and reasons of bad_images.csv.
        warnings: of logs/train.log, without repetitions.
        models: the names of the model files, the one that `predict` uses first.
        folds: folds.json; None if it is not the folder of a k-fold training.
    """

    path: PurePath
    options: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluation: EvaluationFile | None = None
    data: DataFile | None = None
    findings: list[FindingFile] | None = None
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    models: tuple[str, ...] = ()
    folds: FoldsFile | None = None

    @property
    def run(self) -> dict[str, Any]:
        """The run as declared, as JSON."""
        return self.options.get("run") or (self.folds.run if self.folds is not None else {})

    @property
    def name(self) -> str:
        """The name of the output folder."""
        return self.path.name or str(self.path)

    @property
    def task(self) -> str:
        """The kind of the task, such as "Classification"; empty if no file names it."""
        if self.evaluation is not None and self.evaluation.task:
            return self.evaluation.task
        task = self.run.get("task") or self.spec.get("task") or {}
        return str(task.get("type", "")) if isinstance(task, dict) else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty if no file contains them."""
        if self.evaluation is not None:
            return tuple(self.evaluation.classes)
        classes = self.spec.get("classes")
        return tuple(map(str, classes)) if isinstance(classes, list) else ()

    @property
    def is_finished(self) -> bool:
        """Whether training came to its end, which writes final_model.hdf5 last."""
        if self.folds is not None:
            return self.folds.state == "finished"
        return "final_model.hdf5" in self.models


def read_run(output_dir: files.StrPath) -> RunFiles:
    """Reads an output folder.

    Raises:
        DataError: it is not the output folder of a run, or one of its files is damaged.
    """
    path = files.as_path(output_dir)
    if not files.is_folder(path):
        found = "which is a file" if files.exists(path) else "which does not exist"
        raise DataError(f"A report needs the output folder of a run, got {path}, {found}.")
    known = ("training_options.json", "model_spec.json", "evaluation/evaluation.json", "folds.json")
    if not any(files.exists(path / name) for name in known):
        raise DataError(
            f"{path} is not the output folder of a run: it contains neither {known[0]} nor {known[1]}. A run's folder "
            "is named like output/sample-20261126-044731."
        )
    repeat = "Restore it from a copy, or delete it to get a report without it."
    options = parsed(_Options, path / known[0], repeat)
    spec = parsed(_Object, path / known[1], repeat)
    findings = parsed(_Findings, path / "findings.json", repeat)
    names = set(files.names_in(path))
    return RunFiles(
        path=path,
        options={} if options is None else options.model_dump(),
        spec={} if spec is None else spec.root,
        history=_history(path / "history.csv"),
        steps=_steps(path / "logs" / "metrics.jsonl"),
        evaluation=read_evaluation(path),
        data=parsed(DataFile, path / "report" / "data.json", repeat),
        findings=None if findings is None else findings.root,
        bad_images=[(row["image"], row.get("reason") or "") for row in _csv_rows(path / "bad_images.csv", "image")],
        warnings=_warnings(path / "logs" / "train.log"),
        models=tuple(name for name in MODELS if name in names),
        folds=parsed(FoldsFile, path / "folds.json", repeat),
    )


def _text(path: PurePath) -> str:
    """The content of a text file; empty if it is missing or cannot be read."""
    with contextlib.suppress(OSError):
        return files.read_text(path, errors="replace")
    return ""


def _csv_rows(path: PurePath, required: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(_text(path)))
    return [row for row in rows if row.get(required)]


def _history(path: PurePath) -> list[dict[str, float]]:
    rows = []
    for row in _csv_rows(path, "epoch"):
        numbers = {name: _number(value) for name, value in row.items() if isinstance(name, str)}
        if math.isfinite(numbers["epoch"]):
            rows.append(numbers)
    return rows


def _number(text: str | None) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]  # None is a TypeError
    return math.nan


def _steps(path: PurePath) -> list[dict[str, Any]]:
    rows = []
    for line in _text(path).splitlines():
        if '"kind": "step"' not in line:  # those of observers are long
            continue
        with contextlib.suppress(ValueError):  # the last line may be incomplete
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def _warnings(path: PurePath) -> list[str]:
    """The first line of each warning and error, without time; unreadable images have a file of their own."""
    lines = [line.split(" ", 3) for line in _text(path).splitlines()]
    messages = [parts[3] for parts in lines if len(parts) == 4 and parts[2] in ("WARNING", "ERROR")]
    return list(dict.fromkeys(each for each in messages if not each.endswith(("it is skipped.", "bad_images.csv."))))
