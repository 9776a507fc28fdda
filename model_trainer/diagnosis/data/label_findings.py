"""Findings about classes: empty or tiny ones, class imbalance, and one class under two names."""

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

MIN_IMAGES = 10  # a class with fewer is reported as tiny
IMBALANCE = 10.0  # size of the largest class relative to another, above which the other is reported


def label_findings(splits: Sequence[DataSplit]) -> Iterator[Finding]:
    """Yields what is wrong with the classes of the data set."""
    yield from _no_classes(splits)
    yield from _empty(splits)
    yield from _unknown(splits)
    yield from _similar(splits)
    for split in splits:
        if split.trains:
            yield from _tiny(split)
            yield from _imbalance(split)
    yield from _not_validated(splits)


def _no_classes(splits: Sequence[DataSplit]) -> Iterator[Finding]:
    yield from _finding(
        [Example(split.examples.origin, split.name) for split in splits if not split.examples.classes],
        id="no-classes",
        level="note",
        title="folder{s} without class folders",
        why="Only the images were examined: they have no labels, which training needs.",
        cure="Put the images into one folder for each class, or list their labels in a manifest.",
    )


def _empty(splits: Sequence[DataSplit]) -> Iterator[Finding]:
    training = [split for split in splits if split.trains]
    examples = [
        Example(name, split.name, detail="no image")
        for split in splits
        for name, count in _counts(split).items()
        if not count and (split.trains or split.root is not None) and name not in split.unknown_classes
    ]
    for split in splits:
        if split in training or not training:
            continue
        trained = {name for each in training for name in each.examples.classes}
        missing = [name for name, count in _counts(split).items() if count and name not in trained]
        examples += [Example(name, training[0].name, detail=f"occurs in {split.name} only") for name in missing]
    yield from _finding(
        examples,
        id="empty-class",
        level="fault",
        title="class{es} without an image",
        why="A model cannot learn a class without images, and training refuses it.",
        cure="Add images, or remove the folder or the class name.",
    )


def _unknown(splits: Sequence[DataSplit]) -> Iterator[Finding]:
    yield from _finding(
        [Example(name, split.name) for split in splits for name in split.unknown_classes],
        id="unknown-class",
        level="fault",
        title="folder{s} not in the list of classes",
        why="Training refuses a folder that is not in the list of classes.",
        cure="Add its name to ImageFolder(..., classes=...), or remove the folder.",
    )


def _similar(splits: Sequence[DataSplit]) -> Iterator[Finding]:
    names: dict[str, dict[str, DataSplit]] = defaultdict(dict)
    for split in splits:
        for name in split.examples.classes:
            names[_normalized(name)].setdefault(name, split)
    yield from _finding(
        [
            Example(name, split.name, detail=f"like {', '.join(map(repr, [each for each in similar if each != name]))}")
            for similar in names.values()
            if len(similar) > 1
            for name, split in similar.items()
        ],
        id="similar-labels",
        level="warning",
        title="class name{s} that differ from another only by case, space, '-' or '_'",
        why="The model treats them as different classes, and will confuse them.",
        cure="If they mean the same, give them the same name.",
    )


def _tiny(split: DataSplit) -> Iterator[Finding]:
    yield from _finding(
        [
            Example(name, split.name, detail=counted(count, "image{s}"))
            for name, count in _counts(split).items()
            if 0 < count < MIN_IMAGES
        ],
        id="tiny-class",
        level="warning",
        title=f"class{{es}} with fewer than {MIN_IMAGES} images",
        why="The model overfits to so few images, and a split leaves hardly one for validation.",
        cure="Collect more images, or leave the class out: ImageFolder(...).filter(min_images=...).",
    )


def _imbalance(split: DataSplit) -> Iterator[Finding]:
    counts = {name: count for name, count in _counts(split).items() if count}
    if not counts:
        return
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    ratio = counts[largest] / counts[smallest]
    if ratio <= IMBALANCE:
        return
    weights = "task.class_weights=balanced` or `--set training.sampling=Equiprobable"
    if split.is_multi_label:
        weights = "task.positive_weights=balanced"
    rare = [name for name in counts if counts[largest] / counts[name] > IMBALANCE]
    rare.sort(key=lambda name: counts[name])
    yield from _finding(
        [Example(name, split.name, detail=counted(counts[name], "image{s}")) for name in rare],
        id="imbalance",
        level="warning",
        title=f"class{{es}} more than {IMBALANCE:g} times smaller than {largest!r}",
        why=f"{largest!r} has {ratio:,.0f} times as many images as {smallest!r}. A model can be right most of the time "
        "without ever predicting a small class.",
        cure=f"`--set {weights}`; judge by the recall of each class, not by accuracy.",
    )


def _not_validated(splits: Sequence[DataSplit]) -> Iterator[Finding]:
    training = {name: count for split in splits if split.trains for name, count in _counts(split).items()}
    yield from _finding(
        [
            Example(name, split.name, detail=f"{counted(count, 'image{s}')} in training")
            for split in splits
            if not split.trains and split.examples.classes
            for name, count in training.items()
            if count and not (_counts(split).get(name) or (split.root is not None and name in split.examples.classes))
        ],
        id="not-validated",
        level="warning",
        title="class{es} without validation images",
        why="Validation cannot measure how well the model recognizes them.",
        cure="Move some of their images to validation, or split the data again: ImageFolder(...).split(val=0.1).",
    )


def _counts(split: DataSplit) -> dict[str, int]:
    return dict(zip(split.examples.classes, map(int, split.examples.counts()), strict=True))


def _normalized(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name)).casefold()


def _finding(examples: list[Example], *, id: str, level: Level, title: str, why: str, cure: str) -> Iterator[Finding]:
    if examples:
        count, shown = len(examples), tuple(examples[:MAX_EXAMPLES])
        yield Finding(id, level, counted(count, title), why, cure, count, shown, np.zeros(0, np.int64))
