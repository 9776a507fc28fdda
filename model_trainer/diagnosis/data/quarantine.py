"""Moves files that training cannot read, or that a user lists, to another folder, and logs each move."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.errors import DataError, StorageError
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding
from model_trainer.messages import counted
from model_trainer.storage import files, moves
from model_trainer.storage.lines import csv_lines

__all__ = ["check_folder_beside", "move_aside", "moved_before", "unreadable_images"]

LOG_NAME = "quarantine.csv"

# A missing file cannot be moved, and one that could not be opened may be intact.
_MOVED_STATES = (State.EMPTY, State.TRUNCATED, State.BOMB, State.DAMAGED)


def check_folder_beside(path: str | None, splits: Sequence[DataSplit], folder: Path, option: str) -> None:
    """Checks that the files of `splits`, found in `path`, can be moved or copied to `folder`.

    Raises:
        DataError: a split is not a folder of images, or `folder` is inside the data set or a file.
    """
    for split in splits:
        if split.root is None:
            raise DataError(
                f"{option} works for folders of images only; {split.examples.origin} is not a folder, and would still "
                "list the files. doctor.json names the images to remove."
            )
        for root in (split.root, split.root if path is None else Path(path)):
            if Path(files.real_path(folder)).is_relative_to(files.real_path(root)):
                raise DataError(
                    f"{option} {folder} is inside {root}, so it would become part of the data set. Choose another "
                    "folder."
                )
    if files.exists(folder) and not files.is_folder(folder):
        raise DataError(f"{option} {folder} is a file; it should be a folder.")


def unreadable_images(survey: Survey) -> dict[int, str]:
    """Finds unreadable, truncated and empty files and decompression bombs: the reason by the image's index."""
    images = np.flatnonzero(np.isin(survey["state"], _MOVED_STATES))
    return {image: survey.reasons[image] for image in map(int, images)}


def moved_before(folder: Path) -> set[str]:
    """The absolute paths from which files were moved to `folder` by earlier calls, and which no longer exist."""
    if not files.is_file(folder / LOG_NAME):
        return set()
    with files.open_text(folder / LOG_NAME, "utf-8", "surrogateescape", newline="") as file:
        paths = [row.get("from") for row in csv.DictReader(file)]
    return {os.path.abspath(path) for path in paths if path and not files.exists(path)}


def move_aside(survey: Survey, folder: Path, reasons: Mapping[int, str], why: str) -> tuple[Survey, list[Finding]]:
    """Moves images to `folder`.

    Under `folder` they keep their paths relative to the data set. Nothing is overwritten. Each move is appended to
    `quarantine.csv` in `folder` as a line `from,to,reason`.

    Args:
        reasons: why each image is moved, by its index.
        why: the reason that they have in common, for the finding.

    Returns:
        The survey of the remaining images, and a finding about the moved ones.

    Raises:
        StorageError: a file cannot be moved. Those before it have been moved and logged.
    """
    images = np.array(sorted(reasons), np.int64)
    if not len(images):
        return survey, []
    log = folder / LOG_NAME
    try:
        files.make_folder(folder)
        is_new = not files.exists(log)
        with contextlib.closing(files.append(log)) as table:  # opened first, so that nothing is moved without a log
            if is_new:
                table.write(_line("from", "to", "reason"))
            for image in map(int, images):
                source = survey.name(image)
                target = moves.move_aside(Path(source), folder / survey.find(image)[0].relative(source))
                table.write(_line(source, str(target), reasons[image]))
    except OSError as error:
        raise StorageError(f"Could not move files to {folder}: {error}.") from error
    finding = Finding(
        id="quarantined",
        level="note",
        title=f"{counted(len(images), 'file{s}')} moved to {folder}",
        why=f"{why}; they are no longer part of the data set.",
        cure=f"{log} lists where each file was and why it was moved.",
        count=len(images),
        examples=tuple(
            Example(survey.name(image), survey.find(image)[0].name, survey.label(image), reasons[image])
            for image in map(int, images[:MAX_EXAMPLES])
        ),
        images=np.zeros(0, np.int64),  # they have no index among the remaining images
    )
    keep = np.ones(len(survey), bool)
    keep[images] = False
    return survey.select(keep), [finding]


def _line(*values: str) -> bytes:
    return csv_lines([values]).encode("utf-8", "surrogateescape")
