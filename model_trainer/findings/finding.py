"""A finding: one problem, with its evidence and what to do about it."""

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
        split: the split that it is in, such as "train"; "all" if the data set is not divided.
        label: of the image; empty if it has none.
        detail: what is special about it, such as "is truncated".
        image: its index among the examined images; None if it is not an image.
    """

    name: str
    split: str = ""
    label: str = ""
    detail: str = ""
    image: int | None = None


@dataclass(frozen=True, eq=False)
class Finding:
    """One problem, noticed by a rule.

    Attributes:
        id: stable identifier for programs, such as "zero-byte".
        level: "fault" sets the exit code to 1, "warning" and "note" do not.
        title: the problem in a few words, with the count.
        why: what it means for training.
        cure: what to do: a command, or a change to the run or the data.
        count: number of images, classes or files concerned.
        examples: some of them, at most `MAX_EXAMPLES`.
        images: int64, indices of all images concerned; empty if it is not about images.
    """

    id: str
    level: Level
    title: str
    why: str
    cure: str
    count: int
    examples: tuple[Example, ...]
    images: np.ndarray
