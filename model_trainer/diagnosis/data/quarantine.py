"""Moves files that no training can read aside, and writes down each move."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.errors import DataError, StorageError
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding
from model_trainer.messages import counted
from model_trainer.storage import files, moves
from model_trainer.storage.lines import csv_lines

__all__ = ["check_folder_beside", "move_aside"]

LOG_NAME = "quarantine.csv"

# A missing file is not there to be moved; one that could not be opened may be whole.
_MOVED = (State.EMPTY, State.TRUNCATED, State.BOMB, State.DAMAGED)


def check_folder_beside(path: str | None, parts: Sequence[DataSplit], folder: Path, option: str) -> None:
    """Raises DataError where the files of `parts`, found in `path`, cannot be moved or copied to `folder`."""
    for part in parts:
        if part.root is None:
            raise DataError(
                f"{option} works on folders of images; {part.examples.origin} is none, and would not know of the "
                "change. doctor.json names the images to take out."
            )
        for root in (part.root, part.root if path is None else Path(path)):
            if Path(files.real_path(folder)).is_relative_to(files.real_path(root)):
                raise DataError(
                    f"{option} {folder} lies inside {root}, and would become part of the data set. Choose another."
                )
    if files.exists(folder) and not files.is_folder(folder):
        raise DataError(f"{option} {folder} is a file; it should be a folder.")


def move_aside(survey: Survey, folder: Path) -> tuple[Survey, list[Finding]]:
    """Moves unreadable, truncated and empty files and bombs to `folder`, below it as they lie in the data set.

    Nothing is overwritten; `quarantine.csv` in `folder` gets a line `from,to,reason` after each move, and grows when
    more is moved there later.

    Returns:
        The survey of what remains, and a finding about what went.

    Raises:
        StorageError: a file cannot be moved; those before it are moved and written down.
    """
    images = np.flatnonzero(np.isin(survey["state"], _MOVED))
    if not len(images):
        return survey, []
    log = folder / LOG_NAME
    try:
        files.make_folder(folder)
        is_new = not files.exists(log)
        with contextlib.closing(files.append(log)) as table:  # first: each move is to be written down
            if is_new:
                table.write(_line("from", "to", "reason"))
            for image in map(int, images):
                source = survey.name(image)
                target = moves.move_aside(Path(source), folder / survey.find(image)[0].relative(source))
                table.write(_line(source, str(target), survey.reasons[image]))
    except OSError as error:
        raise StorageError(f"Could not move files to {folder}: {error}.") from error
    finding = Finding(
        id="quarantined",
        level="note",
        title=f"{counted(len(images), 'file{s}')} moved to {folder}",
        why="They could not be read; they are no longer part of the data set.",
        cure=f"{log} tells where each was and why it went.",
        count=len(images),
        examples=tuple(
            Example(survey.name(image), survey.find(image)[0].name, survey.label(image), survey.reasons[image])
            for image in map(int, images[:MAX_EXAMPLES])
        ),
        images=np.zeros(0, np.int64),  # none of those that remain
    )
    keep = np.ones(len(survey), bool)
    keep[images] = False
    return survey.kept(keep), [finding]


def _line(*values: str) -> bytes:
    return csv_lines([values]).encode("utf-8", "surrogateescape")
