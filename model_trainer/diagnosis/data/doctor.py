"""`model-trainer doctor`: examines a data set, optionally moves or fixes its files, and reports what it found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.examine import MIN_SIZE, diagnose, survey_splits
from model_trainer.diagnosis.data.fixed_copy import write_fixed_copy
from model_trainer.diagnosis.data.listed_images import read_listed_images
from model_trainer.diagnosis.data.progress import ReadingProgress
from model_trainer.diagnosis.data.quarantine import check_folder_beside, move_aside, unreadable_images
from model_trainer.diagnosis.data.show import print_diagnosis
from model_trainer.diagnosis.data.splits import find_splits
from model_trainer.errors import ConfigError, StorageError
from model_trainer.findings.finding import Finding
from model_trainer.messages import counted
from model_trainer.run.run import Run
from model_trainer.storage import files

__all__ = ["run_doctor"]

INTERRUPTED = 130


def run_doctor(
    path: str,
    run: Run | None = None,
    *,
    make_page: Callable[[Diagnosis], str],
    root: str | None = None,
    classes: Sequence[str] | None = None,
    output: str = ".",
    quarantine: str | None = None,
    images: str | None = None,
    fix: str | None = None,
    max_pixels: int | None = None,
    min_size: int = MIN_SIZE,
) -> int:
    """Examines `path`, or the data of `run`, prints the findings, and writes `doctor.html` and `doctor.json`.

    Args:
        path: what to examine, see `examine`; with `run`, only its name in the report.
        run: examine the data of this run instead of `path`.
        make_page: renders the HTML page. It is `doctor_page` of `report/`, which this package must not import.
        root, classes: see `examine`.
        output: folder for the two files.
        quarantine: folder to which unreadable files are moved; the findings are about the files that remain.
        images: a CSV with a column `path`; with `quarantine` the images listed in it are moved, not unreadable ones.
        fix: folder to which a fixed copy is written; the findings are about the original.
        max_pixels, min_size: see `examine`.

    Returns:
        The exit code: 0, 1 if there are faults, 130 after Ctrl-C.

    Raises:
        DataError, ConfigError: there is nothing to examine, or an option does not apply to it.
        StorageError: a file cannot be written.
    """
    if images is not None and quarantine is None:
        raise ConfigError("needs a folder to which the listed images are moved: --quarantine DIR.", "--images")
    console = Console(stderr=True)
    listed: dict[int, str] = {}
    try:
        with ReadingProgress(console, "Reading") as progress:
            splits = find_splits(run or path, root=root, classes=classes)
            for folder, option in ((quarantine, "--quarantine"), (fix, "--fix")):
                if folder is not None:
                    check_folder_beside(None if run else path, splits, Path(folder), option)
            if images is not None and quarantine is not None:
                listed = read_listed_images(images, splits, Path(quarantine))
            survey = survey_splits(splits, max_pixels, progress.update)
        extra_findings: list[Finding] = []
        if quarantine is not None:
            if images is None:
                reasons, why = unreadable_images(survey), "They could not be read"
            else:
                reasons, why = listed, f"They are listed in {images}"
            survey, extra_findings = move_aside(survey, Path(quarantine), reasons, why)
        if fix is not None:
            with ReadingProgress(console, "Copying") as progress:
                num_changed = write_fixed_copy(survey, Path(fix), progress.update)
            console.print(f"Fixed copy: {fix}, {counted(num_changed, 'image{s}')} changed", markup=False)
        diagnosis = diagnose(path, survey, max_pixels=max_pixels, min_size=min_size, extra_findings=extra_findings)
        # Before printing: a pipe to `head` may end the process.
        _write(diagnosis, make_page(diagnosis), files.as_path(output))
        print_diagnosis(diagnosis)
        print(f"Report: {files.as_path(output) / 'doctor.html'}")
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    return diagnosis.exit_code


def _write(diagnosis: Diagnosis, page: str, folder: Path) -> None:
    try:
        files.make_folder(folder)
    except OSError as error:
        raise StorageError(f"The folder {folder} could not be made: {error.strerror}.") from error
    files.write_text(folder / "doctor.json", json.dumps(diagnosis.to_dict(), indent=1) + "\n")
    files.write_text(folder / "doctor.html", page)
