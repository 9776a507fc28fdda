"""The report of a run: one page made of the files in its output folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from model_trainer.errors import StorageError
from model_trainer.report.charts import BarChart
from model_trainer.report.class_counts import MAX_CLASSES, class_counts_chart
from model_trainer.report.class_table import MAX_FOLDS, class_table, fold_table, slice_tables
from model_trainer.report.confusion import confusion_table
from model_trainer.report.damage import damage_named
from model_trainer.report.embedded_images import Pictures
from model_trainer.report.evaluation_file import EvaluationFile
from model_trainer.report.history_charts import history_charts
from model_trainer.report.json_files import MAX_TEXT, shortened
from model_trainer.report.pages import render_page, script_hash
from model_trainer.report.quality_charts import calibration_chart, selective_chart, tag_curves
from model_trainer.report.run_files import RunFiles, read_run
from model_trainer.report.settings import changed_settings, options_file
from model_trainer.report.snippet import plain_keras, with_model_trainer
from model_trainer.report.summary import cards, facts, metrics, notes, subtitle
from model_trainer.storage import files
from model_trainer.storage.manifest import update_manifest
from model_trainer.storage.write_errors import not_written

__all__ = ["render_report", "write_page", "write_report"]

MAX_PAGE_BYTES = 4_500_000  # with its pictures
ENOUGH_WITHOUT = 400_000  # bytes that a typical page needs without its pictures
MAX_FINDINGS, MAX_VERSIONS = 100, 50


def write_report(output_dir: files.StrPath) -> Path:
    """Writes `report/index.html` of an output folder, from the files in it, and returns its path.

    Raises:
        DataError: the folder is not that of a run, or one of its files is damaged.
        StorageError: the page cannot be written.
    """
    run = read_run(output_dir)
    page = write_page(files.as_path(output_dir) / "report" / "index.html", render_report(run))
    update_manifest(run.path, "report")
    return page


def write_page(path: files.StrPath, page: str) -> Path:
    """Writes a page, and its folder if it is missing.

    Raises:
        StorageError: it cannot be written.
    """
    path = files.as_path(path)
    try:
        files.make_folder(path.parent)
    except OSError as error:
        raise error if isinstance(error, StorageError) else not_written(path.parent, error) from error
    files.write_text(path, page)
    return path


def render_report(run: RunFiles, *, version: str = "", problem: str = "") -> str:
    """Renders the page of a run.

    Args:
        run: the files of its output folder.
        version: of a page that asks its server for a newer one, see `watch.py`; empty for a page that is a file.
        problem: why newer files could not be read; it is the first note of the page.

    Raises:
        DataError: values of a damaged file cannot be laid out.
    """
    with damage_named(run.path):
        return _render(run, version, problem)


def _render(run: RunFiles, version: str, problem: str) -> str:
    values: dict[str, Any] = {
        **_values_of_evaluation(run.evaluation, run.word),
        "run": run,
        "folds": None if run.folds is None else fold_table(run.folds),
        "subtitle": subtitle(run),
        "facts": facts(run),
        "notes": [*([problem] if problem else []), *notes(run)],
        "plain_keras": plain_keras(run),
        "with_model_trainer": with_model_trainer(run),
        "curves": history_charts(run),
        "class_counts": _class_counts(run),
        "command": [shortened(shlex.join(run.options["command"]), MAX_TEXT)] if run.options.get("command") else [],
        "versions": _versions(run),
        "max_folds": MAX_FOLDS,
        "findings": (run.findings or [])[:MAX_FINDINGS],
        "repeat": [f"model-trainer train {shlex.quote(str(run.path / 'training_options.json'))}"],
        "max_classes": MAX_CLASSES,
        "settings": changed_settings(run),
        "options_file": options_file(run),
        "word": run.word,
        "version": version,
        "script_hashes": [script_hash("report.js"), *([script_hash("watch.js")] if version else [])],
    }
    room = MAX_PAGE_BYTES - ENOUGH_WITHOUT
    left_out: dict[str, str] = {}  # ids and titles of sections
    while True:
        pictures = Pictures(run, room)
        values |= {"examples": pictures.examples(), "galleries": pictures.galleries()}
        values["has_maps"] = any(image.attribution for each in values["galleries"] for image in each.images)
        sections = [(name, title) for name, title in _sections(run, values) if name not in left_out]
        shown = [name for name, _ in sections]
        page = render_page("report.html", **values, sections=sections, shown=shown, left_out=[*left_out.values()])
        excess = len(page.encode()) - MAX_PAGE_BYTES
        if excess <= 0:
            return page
        if room > 0:
            room = min(room, pictures.num_bytes) - excess
        elif len(sections) > 1:
            # Too large even without pictures. The first section, the summary, always fits.
            largest = max(sections[1:], key=lambda section: _section_size(page, section[0]))
            left_out |= dict([largest])
        else:
            raise ValueError(f"the summary has {len(page):,} characters")


def _section_size(page: str, name: str) -> int:
    """The characters from the heading of a section to the next, or to the end."""
    starts = sorted(match.start() for match in re.finditer(r'\bid="h-', page))
    start = page.index(f'id="h-{name}"')
    return next((each for each in starts if each > start), len(page)) - start


def _values_of_evaluation(evaluation: EvaluationFile | None, word: str) -> dict[str, Any]:
    """The variables of the template that need an evaluation; each is None or empty without one."""
    if evaluation is None:
        names = ("largest", "class_table", "confusion", "calibration_chart", "selective_chart", "tag_curves")
        return {"cards": [], "metrics": [], "slices": [], **dict.fromkeys(names)}
    calibration, thresholds = evaluation.calibration, evaluation.selective
    return {
        "cards": cards(evaluation),
        "metrics": metrics(evaluation),
        "class_table": class_table(evaluation, word),
        "confusion": confusion_table(evaluation),
        "largest": evaluation.confusion.largest if evaluation.confusion is not None else [],
        "calibration_chart": None if calibration is None else calibration_chart(calibration),
        "selective_chart": selective_chart(thresholds) if thresholds else None,
        "tag_curves": tag_curves(evaluation.curves),
        "slices": slice_tables(evaluation),
    }


def _sections(run: RunFiles, values: dict[str, Any]) -> list[tuple[str, str]]:
    """The ids and titles of the sections that have something to show."""
    evaluation, words = run.evaluation, "Tags" if run.word == "tag" else "Classes"
    galleries = values["galleries"]
    sections: list[tuple[str, str, Any]] = [
        ("summary", "Summary", True),
        ("folds", "Folds", run.folds),
        ("curves", "Training curves", values["curves"] or run.folds is None),
        ("metrics", "Metrics", values["metrics"]),
        ("classes", words, values["class_table"]),
        ("confusion", "Confusions", values["confusion"] or values["largest"]),
        ("probabilities", "Probabilities", values["calibration_chart"] or values["selective_chart"]),
        ("tag-curves", "Precision and recall", values["tag_curves"]),
        ("missed", "Missed together", evaluation and evaluation.missed_together),
        ("images", "Images", any(each.images or each.num_more for each in galleries)),
        ("slices", "Slices", values["slices"]),
        ("data", "Data", values["class_counts"] or values["examples"]),
        ("findings", "Findings", run.findings is not None),
        ("settings", "Settings", run.run),
        ("environment", "Environment", run.options),
    ]
    return [(name, title) for name, title, content in sections if content]


def _versions(run: RunFiles) -> list[tuple[str, str]]:
    seed = [("seed", shortened(str(run.options["seed"])))] if "seed" in run.options else []
    return [*list(run.options.get("versions", {}).items())[:MAX_VERSIONS], *seed]


def _class_counts(run: RunFiles) -> BarChart | None:
    data = run.data
    if data is None:
        return None
    splits = {"training": data.train, "validation": data.val}
    counts = {name: split.counts for name, split in splits.items() if split is not None and split.counts}
    return class_counts_chart(counts) if counts else None
