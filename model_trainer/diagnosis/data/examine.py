"""Examines a data set: finds its parts, reads every image once, and says what is wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from rich.console import Console

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.duplicate_findings import duplicate_findings
from model_trainer.diagnosis.data.file_findings import file_findings
from model_trainer.diagnosis.data.image_findings import image_findings
from model_trainer.diagnosis.data.label_findings import label_findings
from model_trainer.diagnosis.data.progress import ReadingProgress
from model_trainer.diagnosis.data.splits import DataSplit, find_splits
from model_trainer.diagnosis.data.survey import Survey, survey_images
from model_trainer.diagnosis.data.thumbnails import make_thumbnails
from model_trainer.display.notebook import in_notebook
from model_trainer.errors import ConfigError
from model_trainer.findings.finding import Finding
from model_trainer.images.limits import MAX_PIXELS
from model_trainer.run.run import Run

__all__ = ["MIN_SIZE", "diagnose", "examine", "survey_splits"]

MIN_SIZE = 32  # pixels

_LEVELS = ("fault", "warning", "note")


def examine(
    path_or_run: str | os.PathLike[str] | Run,
    *,
    root: str | None = None,
    classes: Sequence[str] | None = None,
    max_pixels: int | None = None,
    min_size: int = MIN_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """What is wrong with a data set. Nothing is changed.

    Args:
        path_or_run: a folder of class folders, or one that holds such folders as `train` and `val`; a folder of
            images; a manifest, `.rec` or TFRecord file; a run, whose training and validation data are examined, its
            `training_options.json`, or its output folder.
        root: the folder below which the paths of a manifest are.
        classes: names of the classes in their order; None leaves them to the data.
        max_pixels: images of more are not decoded and count as bombs; None takes what training takes.
        min_size: pixels; an image with a shorter side is tiny.
        on_progress: called with the images done and their number, some times a second. None: in a notebook a line
            shows them, elsewhere nothing does.

    Raises:
        DataError: there is nothing to examine, or a file that lists images cannot be read.
        ConfigError: `max_pixels` is above what training takes, or an option does not fit the data.
    """
    target = path_or_run if isinstance(path_or_run, Run) else os.fspath(path_or_run)
    parts = find_splits(target, root=root, classes=classes)
    with contextlib.ExitStack() as shown:
        if on_progress is None and in_notebook():
            on_progress = shown.enter_context(ReadingProgress(Console(stderr=True), "Reading")).update
        survey = survey_splits(parts, max_pixels, on_progress or _no_progress)
    path = target if isinstance(target, str) else " + ".join(part.examples.origin for part in parts)
    return diagnose(path, survey, max_pixels=max_pixels, min_size=min_size)


def _no_progress(done: int, total: int) -> None:
    """For callers that show none."""


def survey_splits(
    parts: Sequence[DataSplit], max_pixels: int | None, on_progress: Callable[[int, int], None]
) -> Survey:
    """Reads every image of `parts`; see `examine`."""
    if max_pixels is not None and not 1 <= max_pixels <= MAX_PIXELS:
        raise ConfigError(
            f"should be 1 to {MAX_PIXELS:,}, what training takes, got {max_pixels:,}. The environment variable "
            "MODEL_TRAINER_MAX_PIXELS raises it for both.",
            "max_pixels",
        )
    return survey_images(parts, max_pixels or MAX_PIXELS, on_progress)


def diagnose(
    path: str,
    survey: Survey,
    *,
    max_pixels: int | None = None,
    min_size: int = MIN_SIZE,
    further: Sequence[Finding] = (),
) -> Diagnosis:
    """The findings of a survey, and `further` ones, in order of gravity."""
    findings = [
        *further,
        *file_findings(survey),
        *image_findings(survey, min_size),
        *duplicate_findings(survey),
        *label_findings(survey.parts),
    ]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    shown = (each.image for finding in findings for each in finding.examples if each.image is not None)
    thumbnails = make_thumbnails(survey, shown, max_pixels or MAX_PIXELS)
    return Diagnosis(path, survey, tuple(findings), thumbnails)
