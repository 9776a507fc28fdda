"""Reads the files in an output folder that the report is made of; any of them may be missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, RootModel

from model_trainer.config import with_present_names
from model_trainer.errors import DataError
from model_trainer.report.damage import damage_named
from model_trainer.report.evaluation_file import EvaluationFile, read_evaluation
from model_trainer.report.json_files import RESTORE, Count, ImageName, Name, Text, parsed, shortened, up_to
from model_trainer.report.training_logs import read_bad_images, read_history, read_steps, read_warnings
from model_trainer.storage import files

__all__ = ["DataFile", "FindingFile", "RunFiles", "read_run"]

MODELS = ("model_max_acc.hdf5", "final_model.hdf5", "model_min_loss.hdf5", "model_max_sensitivity.hdf5")
MAX_EXAMPLES = 24  # of a finding


class Split(BaseModel):
    """Training or validation data."""

    origin: Name = ""
    images: Count
    counts: dict[Name, Count] = {}


class AugmentedExample(BaseModel):
    """A training image, and what augmentation makes of it; files are relative to `report/`."""

    name: ImageName
    label: Name = ""
    original: Name | None = None
    augmented: list[Name] = []
    labels: list[Name] = []


class DataFile(BaseModel):
    """The content of `report/data.json`."""

    train: Split | None = None
    val: Split | None = None
    examples: list[AugmentedExample] = []


class FindingExample(BaseModel):
    """See `findings.finding.Example`."""

    name: ImageName
    split: Name = ""
    label: Name = ""
    detail: Name = ""


class FindingFile(BaseModel):
    """See `findings.finding.Finding`."""

    id: Name
    level: Literal["fault", "warning", "note"]
    title: Name
    why: Text = ""
    cure: Text = ""
    count: Count = 0
    examples: Annotated[list[FindingExample], up_to(MAX_EXAMPLES)] = []


class FoldMetric(BaseModel):
    """A metric over the folds of a k-fold training."""

    mean: float | None = None
    standard_deviation: float | None = None
    out_of_fold: float | None = None
    folds: list[float | None] = []


class Fold(BaseModel):
    """One fold: its number, counted from 1, and its output folder, relative to that of the k-fold training."""

    fold: Count
    folder: Name | None = None


class FoldsFile(BaseModel):
    """The content of `folds.json`, in the folder of a k-fold training."""

    run: dict[str, Any] = {}
    state: Name = ""
    folds: list[Fold] = []
    main_metric: Name | None = None
    metrics: dict[Name, FoldMetric] | None = None


class _Findings(RootModel[list[FindingFile]]):
    pass


class _Object(RootModel[dict[str, Any]]):
    pass


class _Options(BaseModel):
    model_config = ConfigDict(extra="allow")

    run: dict[str, Any]
    versions: dict[Name, Name] = {}
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
        warnings: those of logs/train.log, without duplicates.
        models: the names of the model files, the one that `predict` uses first.
        folds: folds.json; None if it is not the folder of a k-fold training.
    """

    path: PurePath
    options: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, float | None]] = field(default_factory=list)
    evaluation: EvaluationFile | None = None
    data: DataFile | None = None
    findings: list[FindingFile] | None = None
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    models: tuple[str, ...] = ()
    folds: FoldsFile | None = None

    @cached_property  # pages ask for it in many places
    def run(self) -> dict[str, Any]:
        """The run as declared, as JSON."""
        run: dict[str, Any] = self.options.get("run") or (self.folds.run if self.folds is not None else {})
        return dict(with_present_names(run))

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
    def label_kind(self) -> str:
        """ "single" if an image has one class, "tags" if it has any number."""
        kind = self.evaluation.label_kind if self.evaluation is not None else ""
        return kind or ("tags" if self.task == "MultiLabel" else "single")  # evaluations of earlier versions

    @property
    def word(self) -> str:
        """What the labels are called: "tag" or "class"."""
        return "tag" if self.label_kind == "tags" else "class"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty if no file contains them."""
        if self.evaluation is not None and self.evaluation.classes:
            return tuple(self.evaluation.classes)
        classes = self.spec.get("classes")
        return tuple(shortened(str(name)) for name in classes) if isinstance(classes, list) else ()

    @property
    def is_finished(self) -> bool:
        """Whether training was completed; it writes final_model.hdf5 last."""
        if self.folds is not None:
            return self.folds.state == "finished"
        return "final_model.hdf5" in self.models


def read_run(output_dir: files.StrPath) -> RunFiles:
    """Reads an output folder.

    Raises:
        DataError: it is not the output folder of a run, or one of its files is damaged.
    """
    path = files.as_path(output_dir)
    with damage_named(path):
        return _read(path)


def _read(path: PurePath) -> RunFiles:
    if not files.is_folder(path):
        problem = "which is a file" if files.exists(path) else "which does not exist"
        raise DataError(f"A report needs the output folder of a run, got {path}, {problem}.")
    known = ("training_options.json", "model_spec.json", "evaluation/evaluation.json", "folds.json")
    if not any(files.exists(path / name) for name in known):
        raise DataError(
            f"{path} is not the output folder of a run: it contains neither {known[0]} nor {known[1]}. A run's folder "
            "is named like output/sample-20261126-044731."
        )
    options = parsed(_Options, path / known[0], RESTORE)
    spec = parsed(_Object, path / known[1], RESTORE)
    findings = parsed(_Findings, path / "findings.json", RESTORE)
    names = set(files.names_in(path))
    return RunFiles(
        path=path,
        options={} if options is None else options.model_dump(),
        spec={} if spec is None else spec.root,
        history=read_history(path / "history.csv"),
        steps=read_steps(path / "logs" / "metrics.jsonl"),
        evaluation=read_evaluation(path),
        data=parsed(DataFile, path / "report" / "data.json", RESTORE),
        findings=None if findings is None else findings.root,
        bad_images=read_bad_images(path / "bad_images.csv"),
        warnings=read_warnings(path / "logs" / "train.log"),
        models=tuple(name for name in MODELS if name in names),
        folds=parsed(FoldsFile, path / "folds.json", RESTORE),
    )
