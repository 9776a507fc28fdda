"""Moves files that no training can read aside, and writes down each move."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_trainer.diagnosis.data.parts import Part
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.errors import DataError, StorageError
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding
from model_trainer.messages import counted

__all__ = ["check_folder_beside", "move_aside"]

LOG_NAME = "quarantine.csv"

# A missing file is not there to be moved; one that could not be opened may be whole.
_MOVED = (State.EMPTY, State.TRUNCATED, State.BOMB, State.DAMAGED)


def check_folder_beside(path: str | None, parts: Sequence[Part], folder: Path, option: str) -> None:
    """Raises DataError where the files of `parts`, found in `path`, cannot be moved or copied to `folder`."""
    for part in parts:
        if part.root is None:
            raise DataError(
                f"{option} works on folders of images; {part.examples.origin} is none, and would not know of the "
                "change. doctor.json names the images to take out."
            )
        for root in (part.root, part.root if path is None else Path(path)):
            if folder.resolve().is_relative_to(root.resolve()):
                raise DataError(
                    f"{option} {folder} lies inside {root}, and would become part of the data set. Choose another."
                )
    if folder.exists() and not folder.is_dir():
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
        folder.mkdir(parents=True, exist_ok=True)
        is_new = not log.exists()
        with open(log, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(["from", "to", "reason"])
            for image in map(int, images):
                source = survey.name(image)
                target = _move(Path(source), folder / survey.find(image)[0].relative(source))
                writer.writerow([source, target, survey.reasons[image]])
                file.flush()
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


def _move(source: Path, wanted: Path) -> Path:
    """Moves the file without ever overwriting one, also to another disk; where it came to lie."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        target = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        try:
            if source.is_symlink():
                os.symlink(source.resolve(), target)
            else:
                _link_or_copy(source, target)
        except FileExistsError:
            number += 1
            continue
        source.unlink()
        return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another disk, or a file system without links
        with open(source, "rb") as old, open(target, "xb") as new:
            try:
                shutil.copyfileobj(old, new)
            except BaseException:
                target.unlink()  # not half a file; the whole one is where it was
                raise
        shutil.copystat(source, target)
