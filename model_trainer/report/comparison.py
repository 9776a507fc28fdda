"""The comparison of runs: settings, curves, metrics, and the images that they predict differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_trainer.errors import DataError
from model_trainer.messages import nearest, shown
from model_trainer.report.damage import damage_named
from model_trainer.report.evaluation_file import ClassColumn, Estimate
from model_trainer.report.history_charts import compared_charts
from model_trainer.report.metric_names import is_lower_better, metric_name
from model_trainer.report.pages import render_page, script_hash
from model_trainer.report.predicted_images import PairedRuns, pair_runs
from model_trainer.report.report import write_page
from model_trainer.report.run_files import RunFiles, read_run
from model_trainer.report.settings import different_settings
from model_trainer.report.summary import estimate_text, subtitle
from model_trainer.storage import files
from model_trainer.storage.manifest import update_manifest

__all__ = ["render_comparison", "write_comparison"]

MAX_CLASSES = 50  # whose metric differs most
MAX_METRICS = 100


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of every run; `best` is the index of the best one, None if it is undefined or the same in all."""

    name: str
    values: tuple[str, ...]
    best: int | None


@dataclass(frozen=True)
class ComparedClass:
    """A metric of one class in every run; `change` is the largest difference to the first run."""

    name: str
    values: tuple[float | None, ...]
    change: float


def write_comparison(output_dirs: Sequence[files.StrPath], path: files.StrPath | None = None) -> Path:
    """Writes a page that compares runs, and returns its path.

    Args:
        output_dirs: two output folders or more; differences are to the first one.
        path: of the page; None: `report/comparison.html` in the first folder.

    Raises:
        DataError: the runs have different tasks or classes, a folder is not that of a run, or a file is damaged.
        StorageError: the page cannot be written.
    """
    if len(output_dirs) < 2:
        raise DataError("A comparison needs at least two output folders.")
    runs = [read_run(each) for each in output_dirs]
    page = render_comparison(runs)
    if path is not None:
        return write_page(path, page)
    written = write_page(files.as_path(output_dirs[0]) / "report" / "comparison.html", page)
    update_manifest(runs[0].path, "report")
    return written


def render_comparison(runs: Sequence[RunFiles]) -> str:
    """Renders the page that compares `runs`.

    Raises:
        DataError: they have different tasks or classes, or a file of predictions is damaged.
    """
    _check_same_kind(runs)
    with damage_named(*(run.path for run in runs)):
        return _render(runs)


def _render(runs: Sequence[RunFiles]) -> str:
    names = _names(runs)
    metrics, classes = _metrics(runs), _classes(runs)
    pairs = [(name, pair_runs(runs[0], run)) for name, run in zip(names[1:], runs[1:], strict=True)]
    sections = [
        ("summary", "Runs"),
        ("metrics", "Metrics"),
        ("images", "Image by image"),
        *([("classes", "Tags" if runs[0].word == "tag" else "Classes")] if classes else []),
        ("curves", "Training curves"),
        ("settings", "Settings"),
    ]
    return render_page(
        "comparison.html",
        runs=list(zip(names, runs, map(subtitle, runs), strict=True)),
        names=names,
        sections=sections,
        metrics=metrics,
        pairs=pairs,
        significance=[_significance(pair) for _, pair in pairs],
        classes=classes,
        class_metric=metric_name(_class_metric(runs) or ""),
        is_tags=runs[0].word == "tag",
        curves=compared_charts({name: run.history for name, run in zip(names, runs, strict=True)}),
        settings=different_settings(runs),
        version="",
        script_hashes=[script_hash("report.js")],
    )


def _check_same_kind(runs: Sequence[RunFiles]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.task and first.task and run.task != first.task:
            raise DataError(
                f"Only runs of the same task can be compared: {first.path} is a {first.task}, {run.path} a {run.task}."
            )
        here, there = set(first.classes), set(run.classes)
        if here and there and here != there:
            odd = min(here ^ there)
            owner, other = (first, there) if odd in here else (run, here)
            raise DataError(
                f"Only runs with the same classes can be compared: {shown(odd)!r} is a class of {owner.path} alone."
                f"{nearest(odd, other)}"
            )


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """The names of the folders, or their paths if names repeat."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _metrics(runs: Sequence[RunFiles]) -> list[ComparedMetric]:
    evaluations = [run.evaluation for run in runs]
    main = next((each.main_metric for each in evaluations if each is not None), "")
    names = dict.fromkeys([main, *(name for each in evaluations if each is not None for name in each.metrics)])
    rows = []
    for name in names:
        estimates = [each.metrics.get(name) if each is not None else None for each in evaluations]
        if any(estimate is not None for estimate in estimates):
            texts = tuple(estimate_text(estimate) for estimate in estimates)
            rows.append(ComparedMetric(metric_name(name), texts, _best(name, estimates)))
    return rows[:MAX_METRICS]


def _best(name: str, estimates: Sequence[Estimate | None]) -> int | None:
    values = {index: each.value for index, each in enumerate(estimates) if each is not None and each.value is not None}
    if len(set(values.values())) < 2:
        return None
    return (min if is_lower_better(name) else max)(values, key=lambda index: values[index])


def _class_metric(runs: Sequence[RunFiles]) -> str | None:
    """The first of the metrics by class that every run has; None if there is none."""
    by_run = [run.evaluation.per_class if run.evaluation is not None else {} for run in runs]
    columns = [{name for name, column in each.items() if isinstance(column, ClassColumn)} for each in by_run]
    return next((name for name in ("f1", "average_precision", "recall") if all(name in each for each in columns)), None)


def _classes(runs: Sequence[RunFiles]) -> list[ComparedClass]:
    """The classes whose metric differs most from that of the first run."""
    metric = _class_metric(runs)
    if metric is None:
        return []
    by_run = []
    for run in runs:
        column = run.evaluation.per_class[metric] if run.evaluation is not None else None
        assert isinstance(column, ClassColumn)  # see _class_metric
        by_run.append(dict(zip(run.classes, column.value, strict=True)))
    rows = []
    for name in runs[0].classes:
        values = [each.get(name) for each in by_run]
        changes = [value - values[0] for value in values[1:] if value is not None and values[0] is not None]
        if changes:
            rows.append(ComparedClass(name, tuple(values), max(changes, key=abs)))
    return sorted(rows, key=lambda row: -abs(row.change))[:MAX_CLASSES]


def _significance(pair: PairedRuns | None) -> str:
    """The result of the significance test, in words."""
    if pair is None:
        return ""
    p_value = pair.correct.p_value
    text = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    if p_value < 0.05:
        direction = "better" if pair.correct.difference > 0 else "worse"
        return f"significantly {direction} ({pair.correct.test}, {text})"
    low, high = pair.correct.low, pair.correct.high
    doubt = ", although the interval excludes 0: too few images to tell" if low > 0 or high < 0 else ""
    return f"no significant difference ({pair.correct.test}, {text}){doubt}"
