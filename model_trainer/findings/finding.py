"""A finding: one thing that is wrong or odd, with its evidence and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["MAX_EXAMPLES", "Example", "Finding", "Level"]

MAX_EXAMPLES = 24

Level = Literal["fault", "warning", "note"]


@dataclass(frozen=True)
class Example:
    """One image, class or file that a finding is about.

    Attributes:
        name: path of the image, or name of the class or file.
        part: of the data set, such as "train".
        label: of the image; empty without one.
        detail: what is special about it, such as "is truncated".
        image: its number among the images that were examined; None where it is no image.
    """

    name: str
    part: str = ""
    label: str = ""
    detail: str = ""
    image: int | None = None


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that was noticed.

    Attributes:
        id: one stable word for programs, such as "zero-byte".
        level: "fault" makes the exit code 1, "warning" and "note" do not.
        title: what, with the count.
        why: what it means for training.
        cure: what to do: a command, or a change of the run or the data.
        count: how many images, classes or files.
        examples: some of them, at most `MAX_EXAMPLES`.
        images: int64, the numbers of all its images among those examined; none where it is about something else.
    """

    id: str
    level: Level
    title: str
    why: str
    cure: str
    count: int
    examples: tuple[Example, ...]
    images: np.ndarray
