"""Findings about files: what cannot be read, is missing, is called wrongly, or lies where training does not look."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from model_trainer.diagnosis.data.finding_of_images import finding_of_images
from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding, Level
from model_trainer.images.pillow import FORMATS
from model_trainer.messages import counted
from model_trainer.sources.image_folder import IMAGE_SUFFIXES, suffixes_of
from model_trainer.sources.images import Files

__all__ = ["FORMAT_OF_SUFFIX", "file_findings", "wrong_suffixes"]

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP",
    ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF",
}  # fmt: skip

_SKIPPED = (
    "Training skips an image that it cannot read, and stops when they are more than training.max_bad_images and "
    "training.max_bad_share."
)
_MOVE = "Get them again, or take them out; of a folder `--quarantine DIR` moves them aside."

_MOVE_BOMBS = (
    "Take them out; of a folder `--quarantine DIR` moves them aside. If so large an image is meant, raise the limit of "
    "training and doctor: the environment variable MODEL_TRAINER_MAX_PIXELS."
)


def file_findings(survey: Survey) -> Iterator[Finding]:
    """What is wrong with the files of `survey`."""
    yield from _unreadable(survey)
    yield from _missing(survey)
    wrong = wrong_suffixes(survey)
    yield from finding_of_images(
        survey,
        wrong,
        id="wrong-suffix",
        level="warning",
        title="image{s} of another format than the file name says",
        why="Training goes by the bytes and reads them all the same. Other programs go by the name and may not.",
        cure="`--fix DIR` writes a copy of a folder in which they are called by their format.",
        details={int(each): f"is a {FORMATS[survey['format'][each]]}" for each in wrong[:MAX_EXAMPLES]},
    )
    yield from _of_paths(
        survey.parts,
        lambda part: part.others,
        id="no-image",
        title="file{s} that training skips, as no image",
        why="They have no image's name and do not begin like one; most are left over from copying.",
        cure=f"Remove them. Convert those that are images after all: {', '.join(IMAGE_SUFFIXES)} are found.",
        with_suffixes=True,
    )
    yield from _of_paths(
        survey.parts,
        lambda part: part.hidden,
        id="hidden",
        level="note",
        title="hidden file{s} or folder{s}, which training skips",
        why="Their name begins with a dot: most are written by an editor, a notebook or a file manager.",
        cure="Nothing, unless images are meant: rename those.",
    )
    yield from _of_paths(
        survey.parts,
        lambda part: part.loose,
        id="no-class-folder",
        title="image{s} beside the class folders, which training does not see",
        why="The first folder below the data set's names the class; an image outside has none.",
        cure="Move each into the folder of its class.",
    )


def wrong_suffixes(survey: Survey) -> np.ndarray:
    """int64: the images in files of their own whose name says another format than their bytes."""
    wrong = []
    first = 0
    for part in survey.parts:
        if isinstance(part.examples.images, Files):
            for index in range(len(part.examples)):
                code = survey["format"][first + index]
                if code == len(FORMATS):
                    continue
                suffix = os.path.splitext(part.examples.name(index))[1].lower()
                if FORMAT_OF_SUFFIX.get(suffix, FORMATS[code]) != FORMATS[code]:
                    wrong.append(first + index)
        first += len(part.examples)
    return np.array(wrong, np.int64)


def _unreadable(survey: Survey) -> Iterator[Finding]:
    kinds = (
        ("zero-byte", (State.EMPTY,), "empty file{s} (0 bytes)", "A copy or download that never arrived.", _MOVE),
        ("truncated", (State.TRUNCATED,), "truncated image{s}", "A copy or download that broke off.", _MOVE),
        (
            "decompression-bomb",
            (State.BOMB,),
            "image{s} too costly to decode",
            "A few bytes that would fill the memory, by accident or by design; none of the pixels was decoded.",
            _MOVE_BOMBS,
        ),
        ("unreadable", (State.DAMAGED, State.CLOSED), "unreadable image{s}", "Damaged, or no image at all.", _MOVE),
    )
    for id, states, title, why, cure in kinds:
        images = np.flatnonzero(np.isin(survey["state"], states))
        yield from finding_of_images(
            survey,
            images,
            id=id,
            level="fault",
            title=title,
            why=f"{why} {_SKIPPED}",
            cure=cure,
            details=survey.reasons,
        )


def _missing(survey: Survey) -> Iterator[Finding]:
    yield from finding_of_images(
        survey,
        np.flatnonzero(survey["state"] == State.MISSING),
        id="missing-file",
        level="fault",
        title="image{s} without a file",
        why=f"The data set names them and nothing is there. {_SKIPPED}",
        cure="Remove their rows or links, or correct the paths. If all are missing, the folder below which they are is "
        "another: `Manifest(..., root='data/images')`.",
        details=survey.reasons,
    )


def _of_paths(
    parts: Sequence[DataSplit],
    paths: Callable[[DataSplit], tuple[str, ...]],
    *,
    id: str,
    title: str,
    why: str,
    cure: str,
    level: Level = "warning",
    with_suffixes: bool = False,
) -> Iterator[Finding]:
    found = [(part.name, path) for part in parts for path in paths(part)]
    if not found:
        return
    if with_suffixes:
        why += f" Most often: {suffixes_of([path for _, path in found])}."
    examples = tuple(Example(path, part) for part, path in found[:MAX_EXAMPLES])
    yield Finding(id, level, counted(len(found), title), why, cure, len(found), examples, np.zeros(0, np.int64))
