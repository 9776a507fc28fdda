"""The report of a run: one page made of the files in its output folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from model_trainer.errors import StorageError
from model_trainer.report.charts import BarChart
from model_trainer.report.class_counts import MAX_CLASSES, class_counts_chart
from model_trainer.report.class_table import class_table, slice_tables
from model_trainer.report.confusion import confusion_table
from model_trainer.report.embedded_images import Pictures
from model_trainer.report.history_charts import history_charts
from model_trainer.report.pages import render_page, script_hash
from model_trainer.report.quality_charts import calibration_chart, selective_chart, tag_curves
from model_trainer.report.run_files import RunFiles, read_run
from model_trainer.report.settings import changed_settings
from model_trainer.report.snippet import plain_keras, with_model_trainer
from model_trainer.report.summary import cards, facts, metrics, notes, subtitle
from model_trainer.storage import files
from model_trainer.storage.trouble import not_written

__all__ = ["render_report", "write_page", "write_report"]

MAX_PAGE_BYTES = 4_500_000  # with its pictures
ENOUGH_WITHOUT = 400_000  # bytes of a common page without pictures


def write_report(output_dir: files.StrPath) -> Path:
    """Writes `report/index.html` of an output folder, from the files in it, and returns its path.

    Raises:
        DataError: the folder is not that of a run, or one of its files is damaged.
        StorageError: the page cannot be written.
    """
    run = read_run(output_dir)
    return write_page(files.as_path(output_dir) / "report" / "index.html", render_report(run))


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


def render_report(run: RunFiles, *, version: str = "") -> str:
    """Renders the page of a run.

    Args:
        run: the files of its output folder.
        version: of a page that asks its server for a newer one, see `watch.py`; empty for a page that is a file.
    """
    evaluation = run.evaluation
    values: dict[str, Any] = {
        "run": run,
        "subtitle": subtitle(run),
        "facts": facts(run),
        "notes": notes(run),
        "cards": cards(evaluation) if evaluation is not None else [],
        "metrics": metrics(evaluation) if evaluation is not None else [],
        "plain_keras": plain_keras(run),
        "with_model_trainer": with_model_trainer(run),
        "curves": history_charts(run),
        "class_table": class_table(evaluation, _word(run)) if evaluation is not None else None,
        "confusion": confusion_table(evaluation) if evaluation is not None else None,
        "calibration_chart": calibration_chart(evaluation.calibration)
        if evaluation and evaluation.calibration
        else None,
        "selective_chart": selective_chart(evaluation.selective) if evaluation and evaluation.selective else None,
        "tag_curves": tag_curves(evaluation.curves) if evaluation is not None else None,
        "slices": slice_tables(evaluation) if evaluation is not None else [],
        "class_counts": _class_counts(run),
        "command": [shlex.join(map(str, run.options["command"]))] if run.options.get("command") else [],
        "repeat": [f"model-trainer train {shlex.quote(str(run.path / 'training_options.json'))}"],
        "max_classes": MAX_CLASSES,
        "settings": changed_settings(run),
        "word": _word(run),
        "version": version,
        "script_hashes": [script_hash("report.js"), *([script_hash("watch.js")] if version else [])],
    }
    room = MAX_PAGE_BYTES - ENOUGH_WITHOUT
    while True:
        pictures = Pictures(run, room)
        values |= {"examples": pictures.examples(), "galleries": pictures.galleries()}
        sections = _sections(run, values)
        values["has_maps"] = any(image.attribution for each in values["galleries"] for image in each.images)
        page = render_page("report.html", **values, sections=sections, shown=[name for name, _ in sections])
        excess = len(page.encode()) - MAX_PAGE_BYTES
        if excess <= 0 or room <= 0:
            return page
        room = min(room, pictures.num_bytes) - excess


def _sections(run: RunFiles, values: dict[str, Any]) -> list[tuple[str, str]]:
    """The ids and titles of the sections that have something to show."""
    evaluation, words = run.evaluation, "Tags" if _word(run) == "tag" else "Classes"
    galleries = values["galleries"]
    sections = [
        ("summary", "Summary", True),
        ("curves", "Training curves", True),
        ("metrics", "Metrics", values["metrics"]),
        ("classes", words, values["class_table"]),
        (
            "confusion",
            "Confusions",
            values["confusion"] or (evaluation and evaluation.confusion and evaluation.confusion.largest),
        ),
        ("probabilities", "Probabilities", values["calibration_chart"] or values["selective_chart"]),
        ("tag-curves", "Precision and recall", values["tag_curves"]),
        ("missed", "Missed together", evaluation and evaluation.missed_together),
        ("images", "Images", any(each.images or each.num_more for each in galleries)),
        ("slices", "Slices", values["slices"]),
        ("data", "Data", values["class_counts"] or values["examples"]),
        ("findings", "Findings", run.findings is not None),
        ("settings", "Settings", run.options),
        ("environment", "Environment", run.options),
    ]
    return [(name, title) for name, title, content in sections if content]


def _word(run: RunFiles) -> str:
    return "tag" if run.task == "MultiLabel" else "class"


def _class_counts(run: RunFiles) -> BarChart | None:
    data = run.data
    if data is None:
        return None
    splits = {"training": data.train, "validation": data.val}
    counts = {name: split.counts for name, split in splits.items() if split is not None and split.counts}
    return class_counts_chart(counts) if counts else None
