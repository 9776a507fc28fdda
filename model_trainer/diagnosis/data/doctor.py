"""`model-trainer doctor`: examines, moves or mends where asked, prints, and writes a page and a JSON file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.examine import MIN_SIZE, diagnose, survey_splits
from model_trainer.diagnosis.data.fixed_copy import write_fixed_copy
from model_trainer.diagnosis.data.progress import ReadingProgress
from model_trainer.diagnosis.data.quarantine import check_folder_beside, move_aside
from model_trainer.diagnosis.data.show import print_diagnosis
from model_trainer.diagnosis.data.splits import find_splits
from model_trainer.errors import StorageError
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
    page_of: Callable[[Diagnosis], str],
    root: str | None = None,
    classes: Sequence[str] | None = None,
    output: str = ".",
    quarantine: str | None = None,
    fix: str | None = None,
    max_pixels: int | None = None,
    min_size: int = MIN_SIZE,
) -> int:
    """Examines `path`, or the data of `run`, prints what was found, and writes `doctor.html` and `doctor.json`.

    Args:
        path: what to examine, see `examine`; of a run the name it has in the report.
        run: whose data are examined in place of `path`.
        page_of: makes the page; `doctor_page` of `report/`, a floor above this one.
        root, classes: see `examine`.
        output: folder for the two files.
        quarantine: folder to which unreadable files are moved; what remains is then judged.
        fix: folder to which a mended copy is written; what is judged is the data set itself.
        max_pixels, min_size: see `examine`.

    Returns:
        The exit code: 0, 1 when there are faults, 130 after Ctrl-C.

    Raises:
        DataError, ConfigError: there is nothing to examine, or an option does not fit it.
        StorageError: a file cannot be written.
    """
    console = Console(stderr=True)
    try:
        with ReadingProgress(console, "Reading") as progress:
            parts = find_splits(run or path, root=root, classes=classes)
            for folder, option in ((quarantine, "--quarantine"), (fix, "--fix")):
                if folder is not None:
                    check_folder_beside(None if run else path, parts, Path(folder), option)
            survey = survey_splits(parts, max_pixels, progress.update)
        further: list[Finding] = []
        if quarantine is not None:
            survey, further = move_aside(survey, Path(quarantine))
        if fix is not None:
            with ReadingProgress(console, "Mending") as progress:
                num_changed = write_fixed_copy(survey, Path(fix), progress.update)
            console.print(f"Mended copy: {fix}, {counted(num_changed, 'image{s}')} changed", markup=False)
        diagnosis = diagnose(path, survey, max_pixels=max_pixels, min_size=min_size, further=further)
        _write(diagnosis, page_of(diagnosis), Path(output))  # first: the reader of what is printed may be `head`
        print_diagnosis(diagnosis)
        print(f"Report: {Path(output) / 'doctor.html'}")
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
