"""Findings about files: unreadable, missing, with a wrong suffix, or where training does not look for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from model_trainer.diagnosis.data.image_finding import make_image_finding
from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding, Level
from model_trainer.images.pillow import FORMATS
from model_trainer.messages import counted
from model_trainer.sources.image_folder import IMAGE_SUFFIXES, suffixes_of
from model_trainer.sources.images import Files
from model_trainer.sources.objects import Objects

__all__ = ["FORMAT_OF_SUFFIX", "file_findings", "wrong_suffixes"]

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP",
    ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF",
}  # fmt: skip

_SKIPPED = (
    "Training skips an image that it cannot read, and stops if there are more than training.max_bad_images and "
    "training.max_bad_fraction allow."
)
_MOVE = "Download or copy them again, or remove them; for a folder, `--quarantine DIR` moves them away."

_MOVE_BOMBS = (
    "Remove them; for a folder, `--quarantine DIR` moves them away. If such large images are intended, raise the limit "
    "of training and doctor: the environment variable MODEL_TRAINER_MAX_PIXELS."
)


def file_findings(survey: Survey) -> Iterator[Finding]:
    """Yields what is wrong with the files of `survey`."""
    yield from _unreadable(survey)
    yield from _missing(survey)
    wrong = wrong_suffixes(survey)
    yield from make_image_finding(
        survey,
        wrong,
        id="wrong-suffix",
        level="warning",
        title="image{s} whose format differs from the file name's suffix",
        why="Training detects the format by the first bytes and reads them anyway. Programs that go by the suffix may "
        "not.",
        cure="For a folder, `--fix DIR` writes a copy with correct suffixes.",
        details={int(each): f"is a {FORMATS[survey['format'][each]]}" for each in wrong[:MAX_EXAMPLES]},
    )
    yield from _finding_of_paths(
        survey.splits,
        lambda split: split.non_images,
        id="no-image",
        title="non-image file{s}, which training skips",
        why="Neither their suffix nor their first bytes are an image's; most are left over from copying.",
        cure=f"Remove them. Convert those that are images after all to one of {', '.join(IMAGE_SUFFIXES)}.",
        with_suffixes=True,
    )
    yield from _finding_of_paths(
        survey.splits,
        lambda split: split.hidden,
        id="hidden",
        level="note",
        title="hidden file{s} or folder{s}, which training skips",
        why="Their name begins with a dot: most are written by an editor, a notebook or a file manager.",
        cure="Nothing, unless some are images to train on: rename those.",
    )
    yield from _finding_of_paths(
        survey.splits,
        lambda split: split.without_class,
        id="no-class-folder",
        title="image{s} outside the class folders, which training does not see",
        why="The folder that an image is in names its class; an image outside the class folders has none.",
        cure="Move each image into the folder of its class.",
    )


def wrong_suffixes(survey: Survey) -> np.ndarray:
    """The images whose file name has the suffix of another format than their bytes.

    Returns:
        int64, indices in the survey. Images inside record files have no suffix and are left out.
    """
    wrong = []
    first = 0
    for split in survey.splits:
        if isinstance(split.examples.images, Files | Objects):
            for index in range(len(split.examples)):
                code = survey["format"][first + index]
                if code == len(FORMATS):
                    continue
                suffix = os.path.splitext(split.examples.name(index))[1].lower()
                if FORMAT_OF_SUFFIX.get(suffix, FORMATS[code]) != FORMATS[code]:
                    wrong.append(first + index)
        first += len(split.examples)
    return np.array(wrong, np.int64)


def _unreadable(survey: Survey) -> Iterator[Finding]:
    kinds = (
        ("zero-byte", (State.EMPTY,), "empty file{s} (0 bytes)", "A copy or download that failed.", _MOVE),
        ("truncated", (State.TRUNCATED,), "truncated image{s}", "A copy or download that was interrupted.", _MOVE),
        (
            "decompression-bomb",
            (State.BOMB,),
            "image{s} too large to decode",
            "A small file whose pixels would fill the memory, by accident or on purpose; it was not decoded.",
            _MOVE_BOMBS,
        ),
        (
            "unreadable",
            (State.DAMAGED, State.INACCESSIBLE),
            "unreadable image{s}",
            "Damaged, or not an image at all.",
            _MOVE,
        ),
    )
    for id, states, title, why, cure in kinds:
        images = np.flatnonzero(np.isin(survey["state"], states))
        yield from make_image_finding(
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
    yield from make_image_finding(
        survey,
        np.flatnonzero(survey["state"] == State.MISSING),
        id="missing-file",
        level="fault",
        title="image{s} whose file is missing",
        why=f"The data set lists them, but the files do not exist. {_SKIPPED}",
        cure="Remove their rows or links, or correct the paths. If all are missing, the paths are relative to another "
        "folder: `Manifest(..., root='data/images')`.",
        details=survey.reasons,
    )


def _finding_of_paths(
    splits: Sequence[DataSplit],
    paths: Callable[[DataSplit], tuple[str, ...]],
    *,
    id: str,
    title: str,
    why: str,
    cure: str,
    level: Level = "warning",
    with_suffixes: bool = False,
) -> Iterator[Finding]:
    named_paths = [(split.name, path) for split in splits for path in paths(split)]
    if not named_paths:
        return
    if with_suffixes:
        why += f" Most often: {suffixes_of([path for _, path in named_paths])}."
    count = len(named_paths)
    examples = tuple(Example(path, split) for split, path in named_paths[:MAX_EXAMPLES])
    yield Finding(id, level, counted(count, title), why, cure, count, examples, np.zeros(0, np.int64))
