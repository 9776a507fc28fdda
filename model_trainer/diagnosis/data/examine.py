"""Examines a data set: finds its splits, reads every image once, and lists the problems."""

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
    """Finds out what is wrong with a data set, without changing it.

    Args:
        path_or_run: a folder of class folders, or a folder with such folders named `train` and `val`; a folder of
            images; a manifest, `.rec` or TFRecord file; a run, whose training and validation data are examined; a
            run's `training_options.json` or its output folder.
        root: the folder that the paths in a manifest are relative to.
        classes: names of the classes in their order; None takes them from the data.
        max_pixels: larger images are not decoded and are reported as decompression bombs; None takes the limit of
            training.
        min_size: pixels; an image with a shorter side is reported as tiny.
        on_progress: called a few times a second with the number of images done and of all images. None shows a
            progress line in a notebook and nothing elsewhere.

    Returns:
        A `Diagnosis` with all findings.

    Raises:
        DataError: there is nothing to examine, or a file that lists images cannot be read.
        ConfigError: `max_pixels` is above the limit of training, or an option does not apply to the data.

    Example:
        >>> diagnosis = examine("data")
        >>> diagnosis.classes
        {'train': {'cat': 8, 'dog': 8}, 'val': {'cat': 4, 'dog': 4}}
        >>> [(finding.id, finding.level) for finding in diagnosis.findings]
        [('tiny-class', 'warning')]
    """
    target = path_or_run if isinstance(path_or_run, Run) else os.fspath(path_or_run)
    splits = find_splits(target, root=root, classes=classes)
    with contextlib.ExitStack() as progress:
        if on_progress is None and in_notebook():
            on_progress = progress.enter_context(ReadingProgress(Console(stderr=True), "Reading")).update
        survey = survey_splits(splits, max_pixels, on_progress or _no_progress)
    path = target if isinstance(target, str) else " + ".join(split.examples.origin for split in splits)
    return diagnose(path, survey, max_pixels=max_pixels, min_size=min_size)


def _no_progress(done: int, total: int) -> None:
    """For callers that show none."""


def survey_splits(
    splits: Sequence[DataSplit], max_pixels: int | None, on_progress: Callable[[int, int], None]
) -> Survey:
    """Reads every image of `splits`; see `examine`."""
    if max_pixels is not None and not 1 <= max_pixels <= MAX_PIXELS:
        raise ConfigError(
            f"should be 1 to {MAX_PIXELS:,}, the limit of training, got {max_pixels:,}. The environment variable "
            "MODEL_TRAINER_MAX_PIXELS raises the limit for both.",
            "max_pixels",
        )
    return survey_images(splits, max_pixels or MAX_PIXELS, on_progress)


def diagnose(
    path: str,
    survey: Survey,
    *,
    max_pixels: int | None = None,
    min_size: int = MIN_SIZE,
    extra_findings: Sequence[Finding] = (),
) -> Diagnosis:
    """Applies all rules to a survey.

    Args:
        path: what was examined, for the report.
        survey: the facts about its images.
        max_pixels, min_size: see `examine`.
        extra_findings: reported together with the findings of the rules.

    Returns:
        A `Diagnosis` whose findings are sorted, the most severe first.
    """
    findings = [
        *extra_findings,
        *file_findings(survey),
        *image_findings(survey, min_size),
        *duplicate_findings(survey),
        *label_findings(survey.splits),
    ]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    shown = (each.image for finding in findings for each in finding.examples if each.image is not None)
    thumbnails = make_thumbnails(survey, shown, max_pixels or MAX_PIXELS)
    return Diagnosis(path, survey, tuple(findings), thumbnails)
