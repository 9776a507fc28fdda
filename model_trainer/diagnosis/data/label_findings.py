"""Findings about classes: empty, tiny, far apart in size, or one class under two names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding, Level
from model_trainer.messages import counted

__all__ = ["MIN_IMAGES", "label_findings"]

MIN_IMAGES = 10  # of a class, below which little can be learnt of it
IMBALANCE = 10.0  # the largest class, in smallest ones


def label_findings(parts: Sequence[DataSplit]) -> Iterator[Finding]:
    """What is wrong with the classes of the data set."""
    yield from _no_classes(parts)
    yield from _empty(parts)
    yield from _unknown(parts)
    yield from _similar(parts)
    for part in parts:
        if part.trains:
            yield from _tiny(part)
            yield from _imbalance(part)
    yield from _not_validated(parts)


def _no_classes(parts: Sequence[DataSplit]) -> Iterator[Finding]:
    yield from _finding(
        [Example(part.examples.origin, part.name) for part in parts if not part.examples.classes],
        id="no-classes",
        level="note",
        title="folder{s} without class folders",
        why="The images could be looked at, but not their labels; training needs them.",
        cure="Put images into one folder for each class, or name their labels in a manifest.",
    )


def _empty(parts: Sequence[DataSplit]) -> Iterator[Finding]:
    training = [part for part in parts if part.trains]
    examples = [
        Example(name, part.name, detail="no image")
        for part in parts
        for name, count in _counts(part).items()
        if not count and (part.trains or part.root is not None) and name not in part.unknown
    ]
    for part in parts:
        if part in training or not training:
            continue
        known = {name for each in training for name in each.examples.classes}
        missing = [name for name, count in _counts(part).items() if count and name not in known]
        examples += [Example(name, training[0].name, detail=f"stands in {part.name} only") for name in missing]
    yield from _finding(
        examples,
        id="empty-class",
        level="fault",
        title="class{es} without an image",
        why="Nothing can be learnt of such a class, and training refuses it.",
        cure="Put images there, or remove the folder or the name.",
    )


def _unknown(parts: Sequence[DataSplit]) -> Iterator[Finding]:
    yield from _finding(
        [Example(name, part.name) for part in parts for name in part.unknown],
        id="unknown-class",
        level="fault",
        title="folder{s} that are none of the given classes",
        why="Training refuses a folder that the list of classes does not name.",
        cure="Add the name to ImageFolder(..., classes=...), or remove the folder.",
    )


def _similar(parts: Sequence[DataSplit]) -> Iterator[Finding]:
    names: dict[str, dict[str, DataSplit]] = defaultdict(dict)
    for part in parts:
        for name in part.examples.classes:
            names[_plain(name)].setdefault(name, part)
    yield from _finding(
        [
            Example(name, part.name, detail=f"like {', '.join(map(repr, [each for each in alike if each != name]))}")
            for alike in names.values()
            if len(alike) > 1
            for name, part in alike.items()
        ],
        id="similar-labels",
        level="warning",
        title="class name{s} that differ from another only by case, space, '-' or '_'",
        why="To the model these are different classes, and it will confuse them.",
        cure="If they mean the same, give them one name.",
    )


def _tiny(part: DataSplit) -> Iterator[Finding]:
    yield from _finding(
        [
            Example(name, part.name, detail=counted(count, "image{s}"))
            for name, count in _counts(part).items()
            if 0 < count < MIN_IMAGES
        ],
        id="tiny-class",
        level="warning",
        title=f"class{{es}} of fewer than {MIN_IMAGES} images",
        why="So few are learnt by heart rather than understood, and a split leaves hardly one to validate.",
        cure="Collect more, or leave the class out: ImageFolder(...).filter(min_images=...).",
    )


def _imbalance(part: DataSplit) -> Iterator[Finding]:
    counts = {name: count for name, count in _counts(part).items() if count}
    if not counts:
        return
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    times = counts[largest] / counts[smallest]
    if times <= IMBALANCE:
        return
    weights = "task.class_weights=balanced` or `--set training.sampling=Equiprobable"
    if part.takes_tags:
        weights = "task.positive_weights=balanced"
    rare = [name for name in counts if counts[largest] / counts[name] > IMBALANCE]
    rare.sort(key=lambda name: counts[name])
    yield from _finding(
        [Example(name, part.name, detail=counted(counts[name], "image{s}")) for name in rare],
        id="imbalance",
        level="warning",
        title=f"class{{es}} more than {IMBALANCE:g} times smaller than {largest!r}",
        why=f"{largest!r} has {times:,.0f} times as many images as {smallest!r}. A model can be right most of the time "
        "without ever naming a small class.",
        cure=f"`--set {weights}`; judge by the recall of each class, not by accuracy.",
    )


def _not_validated(parts: Sequence[DataSplit]) -> Iterator[Finding]:
    training = {name: count for part in parts if part.trains for name, count in _counts(part).items()}
    yield from _finding(
        [
            Example(name, part.name, detail=f"{counted(count, 'image{s}')} in training")
            for part in parts
            if not part.trains and part.examples.classes
            for name, count in training.items()
            if count and not (_counts(part).get(name) or (part.root is not None and name in part.examples.classes))
        ],
        id="not-validated",
        level="warning",
        title="class{es} that no image validates",
        why="Whether the model knows them will never be seen.",
        cure="Move some of their images, or split anew: ImageFolder(...).split(val=0.1).",
    )


def _counts(part: DataSplit) -> dict[str, int]:
    return dict(zip(part.examples.classes, map(int, part.examples.counts()), strict=True))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name)).casefold()


def _finding(examples: list[Example], *, id: str, level: Level, title: str, why: str, cure: str) -> Iterator[Finding]:
    if examples:
        count, shown = len(examples), tuple(examples[:MAX_EXAMPLES])
        yield Finding(id, level, counted(count, title), why, cure, count, shown, np.zeros(0, np.int64))
